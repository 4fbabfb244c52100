// C API of the coders of small tensors (FORMAT.md 3 to 5): one stream of int16 symbols per blob.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_SMALL_CODERS_H
#define TOOLKIT_SMALL_CODERS_H

#include "codec_api.h"

#ifdef __cplusplus
extern "C" {
#endif

// Checks a blob's frame and header. *coder becomes 2 (adaptive), 3 (Huffman) or 4 (fixed-length), *num_symbols the
// number of symbols, 1 to 2^24 - 1.
TK_API int32_t tk_small_info(const uint16_t* words, int64_t num_words, int32_t* coder, int64_t* num_symbols);

// Decodes all symbols; num_symbols must be what tk_small_info says. After an error, what out holds is unspecified.
TK_API int32_t tk_small_decode(const uint16_t* words, int64_t num_words, int16_t* out, int64_t num_symbols);

// Encodes n symbols, 1 to 2^24 - 1 (adaptive: 2^20). coder: 0 takes the smallest, else 2, 3 or 4. row_length: the
// distance of symbols that lie above each other, a hint to the adaptive coder; 0: none. On success *words points to
// *num_words words that tk_free releases. TK_ERR_ARGUMENT where the coder asked for cannot hold the symbols (Huffman: a
// range above 4096).
TK_API int32_t tk_small_encode(const int16_t* symbols, int64_t n, int32_t coder, int64_t row_length, uint16_t** words,
                               int64_t* num_words);

#ifdef __cplusplus
}
#endif

#endif  // TOOLKIT_SMALL_CODERS_H
