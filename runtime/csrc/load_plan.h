// C API of load mode: a compressed model to the plain model's graph and its decoded weights.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_LOAD_PLAN_H
#define TOOLKIT_LOAD_PLAN_H

#include "codec_api.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tk_load tk_load;

// Finds the decoded weights of a serialised model, which must stay valid and unchanged until tk_load_close, and opens
// their blobs. Weights of more than `inside_bytes` bytes need *memory_bytes bytes in all, which the caller provides.
// TK_ERR_ARGUMENT where the model, or a chain in it, is of a form that is not known here, and where a blob is refused.
TK_API int32_t tk_load_open(const void* model, int64_t model_bytes, int64_t inside_bytes, int32_t threads,
                            tk_load** load, int64_t* memory_bytes);
TK_API void tk_load_close(tk_load* load);

// Decodes all weights, the large ones into `memory`, aligned to 64 bytes; threads: 0 for one per core. TK_ERR_ARGUMENT
// where a blob does not decode.
TK_API int32_t tk_load_decode(tk_load* load, void* memory, int64_t memory_bytes, int32_t threads);

// What is there after tk_load_decode, valid until tk_load_close.
typedef struct {
  const char* rest;  // the model without its decoding, serialised; the small weights are in it
  int64_t rest_bytes;
  const char* names;  // of the large weights, one behind the other
  int64_t names_bytes;
  int64_t needs_folder;    // 1 where the rest has external data of the model's own
  const int64_t* numbers;  // of each large weight: bytes of its name, ONNX type, offset in memory, rank, dimensions
  int64_t num_numbers;
} tk_load_result;
TK_API int32_t tk_load_get_result(const tk_load* load, tk_load_result* result);

#ifdef __cplusplus
}
#endif

#endif  // TOOLKIT_LOAD_PLAN_H
