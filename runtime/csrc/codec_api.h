// C API of the codecs. Everything here works on caller-owned memory and has no dependency on ONNX Runtime or CUDA.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CODEC_API_H
#define TOOLKIT_CODEC_API_H

#include <stdint.h>

#if defined(_WIN32)
#define TK_API __declspec(dllexport)
#else
#define TK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Status codes are frozen: a number never changes its meaning.
typedef enum {
  TK_OK = 0,
  TK_ERR_ARGUMENT = 1,        // the caller's arguments contradict each other
  TK_ERR_MEMORY = 2,          // an allocation failed
  TK_ERR_TRUNCATED = 3,       // the blob ends before what its header announces, or goes on after it
  TK_ERR_MAGIC = 4,           // not a blob of this format
  TK_ERR_VERSION = 5,         // a format version this library does not know
  TK_ERR_CODER = 6,           // another coder than the one asked for, or an unknown one
  TK_ERR_CHECKSUM = 7,        // the CRC-32 differs
  TK_ERR_HEADER = 8,          // a header or directory field is out of its range
  TK_ERR_TABLE = 9,           // frequencies, thresholds or code lengths are inconsistent
  TK_ERR_STREAM = 10,         // code words or states do not decode to the announced symbols
  TK_ERR_EXCEPTION = 11,      // an exception is out of range or out of order
  TK_ERR_NO_DEVICE = 12,      // no CUDA device or driver that can be used, or a library without CUDA code
  TK_ERR_DEVICE_MEMORY = 13,  // the device has not enough memory
  TK_ERR_DEVICE = 14,         // a CUDA call failed
} tk_status;

// A short English sentence for a status code; never null.
TK_API const char* tk_status_text(int32_t status);

// Instruction sets a decoder may use; AUTO takes the best one of this processor.
typedef enum { TK_ISA_AUTO = 0, TK_ISA_PORTABLE = 1, TK_ISA_AVX2 = 2, TK_ISA_AVX512 = 3 } tk_isa;

// The instruction set that AUTO stands for on this processor.
TK_API int32_t tk_best_isa(void);

// One tensor of symbols to encode: A x B x C in row-major order (FORMAT.md 2.1).
typedef struct {
  const void* symbols;  // int8 or int16
  int64_t a, b, c;      // dimensions, each at least 1
  int32_t trellis;      // 1: symbols of dependent quantisation, decoded to the integers that they stand for
  int32_t reserved;
} tk_tensor;

typedef struct {
  int32_t wide;      // 0: int8 symbols, 1: int16
  int32_t contexts;  // 0: off, 1: chosen per tensor, 2: always on
  int32_t classes;   // 0: one table per tensor, 1: classes chosen per tensor and axis
  int32_t steps;     // wanted steps per lane; 0: the default
  int32_t threads;   // 0: one per core
  int32_t reserved;
} tk_wide_options;

// Encodes the tensors into one wide blob. On success *words points to *num_words words that tk_free releases.
TK_API int32_t tk_wide_encode(const tk_tensor* tensors, int64_t num_tensors, const tk_wide_options* options,
                              uint16_t** words, int64_t* num_words);
TK_API void tk_free(void* memory);

// Chooses the symbols of a tensor: for each row the least sum of importance * (value - integer)^2 + rate_weight * bits.
// The integers are those that the symbols stand for, or the symbols themselves without `trellis`. Bits are what the
// wide coder would spend, learnt from the choice of the round before; the first one has none. What is cheap depends on
// what is chosen, so that the least sum found depends on where the rounds start: a second start has many zeros, and the
// better end counts.
typedef struct {
  const float* values;      // a * b * c, in steps: the scale of the integers is 1
  const float* importance;  // as many, positive; null for 1
  const uint8_t* kept;      // as many: 0 where the symbol must be zero; null where none must
  int64_t a, b, c;          // as in tk_tensor
  double rate_weight;       // squared steps a bit
  int32_t trellis;          // 0: one quantiser, 1: two of them, by eight states (FORMAT.md 2.9)
  int32_t most;             // largest magnitude of an integer, 1 .. 32767
  int32_t rounds;           // how often the rates are learnt
  int32_t starts;           // 1, or 2
  int32_t threads;          // 0: one per core
  int32_t isa;              // tk_isa: at most this; all choose alike
} tk_search;
// Writes the symbols, and to *bits about how many bits they take where rounds > 0.
TK_API int32_t tk_search_symbols(const tk_search* search, int16_t* symbols, double* bits);

// The integers that the symbols of a trellis tensor stand for, rows of `columns` symbols. TK_ERR_ARGUMENT where one
// does not fit int16.
TK_API int32_t tk_trellis_integers(const int16_t* symbols, int64_t rows, int64_t columns, int16_t* integers);

// What symbols cost the wide coder, learnt from an earlier choice of all of them: the tables that it would make for the
// tensor a x b x c alone.
typedef struct tk_symbol_rates tk_symbol_rates;
TK_API int32_t tk_symbol_rates_learn(const int16_t* symbols, int64_t a, int64_t b, int64_t c, int32_t threads,
                                     tk_symbol_rates** rates);
TK_API void tk_symbol_rates_close(tk_symbol_rates* rates);
// Bits of symbols, a * b * c of them, by these rates.
TK_API int32_t tk_symbol_rates_total(const tk_symbol_rates* rates, const int16_t* symbols, double* bits);

// The tables themselves. A symbol k is coded as k >> low_bits, and so many raw bits. Its table stands at
// map[y * contexts + z], y = min(max(row class + column class, 0), classes - 1) and z the context of the coded symbol
// before it in its row (FORMAT.md 2.6); there the coded symbol v costs bits[256 * table + v + 128].
typedef struct {
  int64_t rows, columns;
  int32_t classes, contexts, tables, low_bits;
} tk_rates_info;
TK_API int32_t tk_symbol_rates_get_info(const tk_symbol_rates* rates, tk_rates_info* info);
typedef struct {
  int8_t* row_classes;     // rows
  int8_t* column_classes;  // columns
  uint8_t *t1, *t2;        // classes, where there are five contexts
  uint8_t* map;            // classes * contexts
  float* bits;             // tables * 256
} tk_rates_model;
// Fills the caller's arrays, of the sizes that tk_symbol_rates_get_info gives.
TK_API int32_t tk_symbol_rates_get_model(const tk_symbol_rates* rates, const tk_rates_model* model);

// Chooses the symbols of some features of a layer one feature after the other, each for all outputs, by the least
// importance * (target - symbol)^2 + rate_weight * bits. What a choice misses moves the targets of the features behind.
typedef struct {
  float* targets;         // features * outputs, in steps; those of later features move
  const float* coupling;  // features * features: what the target of feature j gains at [i, j], j > i, by each unit that
                          // the choice for feature i misses
  const float* importance;         // features: of squared errors
  const float* output_importance;  // outputs: the same; null for 1
  const int64_t* places;           // features: index among the symbols of each feature's first output
  const uint8_t* kept;             // as long as the symbols: 0 where the symbol must be zero; null where none must
  int64_t features, outputs;
  int64_t stride;      // from one output to the next among the symbols
  double rate_weight;  // squared steps a bit
  int32_t most;        // largest magnitude of a symbol, 1 .. 32767
  int32_t refine;      // 0: a choice misses target - symbol; 1: symbol before - symbol
} tk_feature_block;
// Symbols, as many as the rates are for, hold the choice before and get the new one; `missed`, features * outputs, gets
// what each choice misses. Without rates (null) there are `num_symbols` symbols, which cost nothing.
TK_API int32_t tk_round_features(const tk_feature_block* block, const tk_symbol_rates* rates, int64_t num_symbols,
                                 int16_t* symbols, float* missed);

// What a wide blob holds. All counts as in FORMAT.md 2.2.
typedef struct {
  int64_t num_tensors, num_lanes, num_blocks, num_steps, num_code_words, num_exceptions, side_words;
  int32_t wide;  // 0: int8 symbols, 1: int16
  int32_t num_sets;
} tk_wide_info;

typedef struct {
  int64_t a, b, c;
  int64_t rows_per_lane;
  int64_t first_lane, num_lanes;
  int64_t code_words;  // code words of its blocks
  int32_t set, low_bits, contexts, reserved;
} tk_wide_tensor_info;

// Checks a whole blob (checksum, header, directory, tables), decodes its side information and keeps it for decoding.
// The words must stay valid and unchanged until tk_wide_close.
typedef struct tk_wide_reader tk_wide_reader;
TK_API int32_t tk_wide_open(const uint16_t* words, int64_t num_words, tk_wide_reader** reader);
TK_API void tk_wide_close(tk_wide_reader* reader);
TK_API int32_t tk_wide_get_info(const tk_wide_reader* reader, tk_wide_info* info);
TK_API int32_t tk_wide_get_tensor(const tk_wide_reader* reader, int64_t tensor, tk_wide_tensor_info* info);

// Decodes the matrix of all symbols, [num_lanes, num_steps] row-major, int8 or int16; positions past a lane's end are
// zero. out_bytes must be num_lanes * num_steps * (wide ? 2 : 1).
TK_API int32_t tk_wide_decode_all(const tk_wide_reader* reader, void* out, int64_t out_bytes, int32_t threads,
                                  int32_t isa);

// Decodes all tensors, one behind the other, each A*B*C symbols in row-major order.
TK_API int32_t tk_wide_decode_tensors(const tk_wide_reader* reader, void* out, int64_t out_bytes, int32_t threads,
                                      int32_t isa);

// Decodes one tensor, A*B*C symbols in row-major order.
TK_API int32_t tk_wide_decode_tensor(const tk_wide_reader* reader, int64_t tensor, void* out, int64_t out_bytes,
                                     int32_t threads, int32_t isa);

// Decodes one tensor and dequantises: out[i] = (symbol[i] - zero) * scale, in float32 arithmetic, then rounded to the
// output type. Scale j belongs to index (i / inner) % count of the flat index i; count = 1 for one scale per tensor.
typedef enum { TK_FLOAT32 = 1, TK_FLOAT16 = 10, TK_BFLOAT16 = 16 } tk_float_type;  // ONNX's numbers
typedef struct {
  const float* scales;         // num_scales
  const int32_t* zero_points;  // num_scales, or null for zeros
  int64_t num_scales;
  int64_t inner;       // elements in a row that share a scale
  int64_t num_values;  // values to write, at most A*B*C: what a padded last row adds is left out
  int32_t out_type;    // tk_float_type
} tk_dequantize;
TK_API int32_t tk_wide_decode_dequantize(const tk_wide_reader* reader, int64_t tensor, const tk_dequantize* how,
                                         void* out, int64_t out_bytes, int32_t threads, int32_t isa);

// Decodes one tensor and looks its symbols up: out[i] = codebook[symbol[i] + offset], elements of elem_bytes (2 or 4).
// A symbol outside the codebook is TK_ERR_STREAM.
TK_API int32_t tk_wide_decode_lookup(const tk_wide_reader* reader, int64_t tensor, const void* codebook,
                                     int64_t num_entries, int64_t offset, int32_t elem_bytes, int64_t num_values,
                                     void* out, int64_t out_bytes, int32_t threads, int32_t isa);

// Joins `elem_bytes` (2 or 4) byte planes of `count` bytes each to floats of so many bytes (FORMAT.md 6). Plane 0 holds
// symbols, bytes minus 128.
TK_API int32_t tk_join_planes(const uint8_t* const* planes, int32_t elem_bytes, int64_t count, int32_t threads,
                              void* out);

// CRC-32 of FORMAT.md 1.
TK_API uint32_t tk_crc32(const void* data, int64_t num_bytes);

#ifdef __cplusplus
}
#endif

#endif  // TOOLKIT_CODEC_API_H
