// C API of decoding and computing on a GPU. All functions are in every build of the library; where it was built without
// CUDA, or there is no device, they say so by their status.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_API_H
#define TOOLKIT_CUDA_API_H

#include "codec_api.h"

#ifdef __cplusplus
extern "C" {
#endif

// What becomes of the symbols of a tensor. Types are numbers of ONNX's TensorProto: 1 float32, 3 int8, 5 int16,
// 6 int32, 10 float16, 16 bfloat16.
typedef struct {
  int32_t kind;        // 0: symbols as they are; 1, 10, 16: dequantised to that type; 32, 33: codebook of 2 or 4 bytes
  int32_t scale_type;  // 1, 10 or 16
  int32_t zero_type;   // 0 where there are no zero points, else 3, 5 or 6
  int32_t reserved;
  const void* scales;
  const void* zero_points;
  const void* codebook;
  int64_t num_scales;
  int64_t inner;        // scale j belongs to flat index i where j = i / inner % num_scales
  int64_t length;       // with block > 0: of the axis; then j = (i / (length * inner) * ceil(length / block)
  int64_t block;        //   + i / inner % length / block) * inner + i % inner
  int64_t num_entries;  // of the codebook
  int64_t offset;       // symbol + offset is the index in the codebook
  int64_t num_values;   // to write, at most the tensor's symbols
} tk_output;

// How tables lie: -1 lets the library choose, 0 direct, 1 paired, 2 buckets, 3 buckets in global memory.
typedef struct {
  int32_t layout, grid, warps, shared_bytes;
  int32_t tables, entries, record_bytes, span;
  int64_t image_bytes, num_blocks;
} tk_plan_info;

// Plans a launch for a device of so many multiprocessors and so much shared memory for a thread block. tensor -1: all
// of the segment's first launch. Needs no device.
TK_API int32_t tk_plan_describe(const tk_wide_reader* reader, int64_t tensor, int32_t layout, int32_t multiprocessors,
                                int32_t shared_bytes, tk_plan_info* info);

// The device's program on the host, lane by lane: memory is the host's. tensor -1: the matrix of all symbols, for which
// output->kind is 0.
TK_API int32_t tk_emulate_decode(const tk_wide_reader* reader, int64_t tensor, int32_t layout, const tk_output* output,
                                 void* out, int64_t out_bytes);

// A product of few rows with a packed weight: out = x * weight, all float16, sums in float32. The weight of an output
// and an input is scale * (field - zero), or scale * codebook[field].
typedef struct {
  const void* x;         // float16 [batch, inputs]
  const void* packed;    // as tk_pack_fields writes it, at a multiple of 16 bytes
  const void* scales;    // float16 [ceil(inputs / group_inputs), outputs]
  const void* zeros;     // float16 of the scales' shape; null: `zero` everywhere
  const void* codebook;  // float16 [2^bits]; null: fields are numbers
  void* out;             // float16 [batch, outputs]
  int64_t batch, outputs, inputs;
  int64_t group_inputs;  // inputs that share a scale: all, or a multiple of 32
  int32_t bits;          // of a field: 1 to 8
  int32_t zero;          // 0 .. 255
} tk_packed;

// 32-bit words of a packed weight; 0 for sizes that cannot be packed.
TK_API int64_t tk_packed_words(int64_t outputs, int64_t inputs, int32_t bits);
// Fields, one a byte, [outputs, inputs], to and from their packed form (packed_layout.h).
TK_API int32_t tk_pack_fields(const uint8_t* fields, int64_t outputs, int64_t inputs, int32_t bits, uint32_t* packed);
TK_API int32_t tk_unpack_fields(const uint32_t* packed, int64_t outputs, int64_t inputs, int32_t bits, uint8_t* fields);
// TK_ERR_ARGUMENT where the description contradicts itself.
TK_API int32_t tk_packed_check(const tk_packed* product);
// The device's product on the host, fragment by fragment, in the host's memory.
TK_API int32_t tk_emulate_packed(const tk_packed* product);
// The product on a device, on the stream; returns at once.
TK_API int32_t tk_cuda_packed(const tk_packed* product, void* stream);

// A packed weight as numbers again: scale * (field - zero), or scale * codebook[field], in float32 and rounded once.
typedef struct {
  const void* packed;    // as tk_pack_fields writes it, at a multiple of 16 bytes
  const void* scales;    // [ceil(inputs / group_inputs), outputs]
  const void* zeros;     // of the scales' shape, or
  const void* codebook;  // [2^bits]
  void* out;             // [outputs, inputs]
  int64_t outputs, inputs;
  int64_t group_inputs;  // inputs that share a scale: all, or a multiple of 32
  int32_t bits;          // of a field: 1 to 8
  int32_t type;          // of scales, zeros or codebook, and of the output: 1 float32, 10 float16
} tk_unpacking;

// TK_ERR_ARGUMENT where the description contradicts itself.
TK_API int32_t tk_unpacking_check(const tk_unpacking* unpacking);
// On the host, lane by lane as on the device; threads as elsewhere.
TK_API int32_t tk_unpack_weight(const tk_unpacking* unpacking, int32_t threads);
// On a device, on the stream; returns at once.
TK_API int32_t tk_cuda_unpack_weight(const tk_unpacking* unpacking, void* stream);

// What decoding ahead on a second stream does (prefetch_plan.h), without a device: for weights of so many bytes that
// may be decoded ahead or not, in groups of group_bytes at most (0: as the library chooses), used one after the other,
// on several streams (lanes), where some uses fail. Writes all steps in the order in which a host thread takes them;
// *num_steps is their number also where the capacity is too small.
typedef struct {
  int64_t place;
  int32_t lane;
  int32_t fails;
} tk_prefetch_use;
typedef struct {
  int32_t action, stream, index, reserved;  // Action, Stream, buffer or event of prefetch_plan.h
  int64_t value, offset, use;               // the place; bytes into the buffer; number of the use
} tk_prefetch_step;
TK_API int32_t tk_prefetch_trace(const uint8_t* ahead, const int64_t* bytes, int64_t num_places, int64_t group_bytes,
                                 const tk_prefetch_use* uses, int64_t num_uses, tk_prefetch_step* steps,
                                 int64_t capacity, int64_t* num_steps);

// What the library and the machine offer. Numbers are 0 and texts empty where something is missing.
typedef struct {
  int32_t built;            // 1: the library has CUDA code
  int32_t runtime_version;  // of CUDA, 13000 for 13.0
  int32_t driver_version;   // the newest CUDA that the driver knows; 0: no driver
  int32_t num_devices;
  int32_t capability;  // of the device, 90 for 9.0
  int32_t multiprocessors;
  int32_t shared_bytes;  // for a thread block
  int32_t reserved;
  int64_t total_bytes, free_bytes;  // of the device's memory
  char name[64];
  char architectures[128];  // that the library was built for
  char problem[160];        // why the device cannot be used, else empty
} tk_cuda_info;
TK_API int32_t tk_cuda_get_info(int32_t device, tk_cuda_info* info);

// What the calling thread's last function of this API that failed says of it; never null.
TK_API const char* tk_cuda_problem(void);

// A tensor of a blob, or with tensor -1 its matrix of all symbols, ready to be decoded on a device. The first one of a
// reader copies the blob and its tables to the device, all others of this reader share them. Waits for the device.
typedef struct tk_cuda_decoder tk_cuda_decoder;
TK_API int32_t tk_cuda_open(const tk_wide_reader* reader, int64_t tensor, int32_t device, int32_t layout,
                            tk_cuda_decoder** decoder);
TK_API void tk_cuda_close(tk_cuda_decoder* decoder);

// Decodes on the stream and returns at once; `output` and `out` point to the device's memory. May be captured in a
// CUDA graph. Several threads may use one decoder.
TK_API int32_t tk_cuda_decode(const tk_cuda_decoder* decoder, const tk_output* output, void* out, int64_t out_bytes,
                              void* stream);

// The same for several decoders of one device at once: those of one blob that go the same way are decoded by one
// kernel, which fills a device where one tensor alone would not. Outputs must not overlap.
typedef struct {
  const tk_cuda_decoder* decoder;
  const tk_output* output;
  void* out;
  int64_t out_bytes;
} tk_cuda_request;
TK_API int32_t tk_cuda_decode_all(const tk_cuda_request* requests, int64_t count, void* stream);

// Whether the tensor, or the matrix, decodes: the first call decodes the whole blob on the device, without writing it,
// and waits for it; all decoders of the blob share what it found.
TK_API int32_t tk_cuda_verify(const tk_cuda_decoder* decoder);

// TK_ERR_STREAM where a decoding that has ended met a blob that does not decode, or a symbol outside the codebook. Does
// not wait.
TK_API int32_t tk_cuda_decoded(const tk_cuda_decoder* decoder);

// Memory of a device; TK_ERR_DEVICE_MEMORY where there is not enough. Giving back waits for the device.
TK_API int32_t tk_cuda_allocate(int32_t device, int64_t bytes, void** memory);
TK_API void tk_cuda_free(int32_t device, void* memory);
// Copies from the host's memory and waits for the end.
TK_API int32_t tk_cuda_upload(int32_t device, void* to, const void* from, int64_t bytes);
// Waits for the work on a stream, null for the legacy default stream.
TK_API int32_t tk_cuda_wait(int32_t device, void* stream);

// The launch of a decoder, and the bytes of device memory that its blob and its image take.
TK_API int32_t tk_cuda_describe(const tk_cuda_decoder* decoder, tk_plan_info* info, int64_t* blob_bytes,
                                int64_t* image_bytes);

#ifdef __cplusplus
}
#endif

#endif  // TOOLKIT_CUDA_API_H
