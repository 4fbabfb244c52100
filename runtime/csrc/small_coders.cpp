// C API of the coders of small tensors: the frame, the choice of the coder and the hand-over of memory.
// SPDX-License-Identifier: Apache-2.0
#include "small_coders.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "blob_frame.h"
#include "small_bodies.h"

namespace toolkit {
namespace {

tk_status check_body(int coder, const uint16_t* body, int64_t num_words, int64_t* n) {
  switch (coder) {
    case kCoderAdaptive:
      return check_adaptive(body, num_words, n);
    case kCoderHuffman:
      return check_huffman(body, num_words, n);
    case kCoderFixed:
      return check_fixed(body, num_words, n);
    default:
      return TK_ERR_CODER;
  }
}

tk_status decode_body(int coder, const uint16_t* body, int64_t num_words, int16_t* out) {
  switch (coder) {
    case kCoderAdaptive:
      return decode_adaptive(body, num_words, out);
    case kCoderHuffman:
      return decode_huffman(body, num_words, out);
    default:
      return decode_fixed(body, num_words, out);
  }
}

tk_status encode_body(int coder, const int16_t* symbols, int64_t n, int64_t row_length, Words* words) {
  words->assign(kFrameWords, 0);
  switch (coder) {
    case kCoderAdaptive:
      return encode_adaptive(symbols, n, row_length, words);
    case kCoderHuffman:
      return encode_huffman(symbols, n, words);
    default:
      return encode_fixed(symbols, n, words);
  }
}

tk_status open_blob(const uint16_t* words, int64_t num_words, int* coder, const uint16_t** body, int64_t* body_words,
                    int64_t* n) {
  const tk_status status = check_frame(words, num_words, 0, body, body_words);
  if (status != TK_OK) return status;
  *coder = frame_coder(words);
  return check_body(*coder, *body, *body_words, n);
}

tk_status encode_blob(const int16_t* symbols, int64_t n, int coder, int64_t row_length, uint16_t** words,
                      int64_t* num_words) {
  Words best;
  int best_coder = 0;
  for (const int candidate : {kCoderFixed, kCoderHuffman, kCoderAdaptive}) {
    if (coder != 0 && coder != candidate) continue;
    Words trial;
    const tk_status status = encode_body(candidate, symbols, n, row_length, &trial);
    if (status == TK_ERR_ARGUMENT) continue;
    if (status != TK_OK) return status;
    if (best_coder == 0 || trial.size() < best.size()) {
      best = std::move(trial);
      best_coder = candidate;
    }
  }
  if (best_coder == 0) return TK_ERR_ARGUMENT;
  write_frame(best.data(), static_cast<int64_t>(best.size()), best_coder);
  auto* memory = static_cast<uint16_t*>(std::malloc(best.size() * sizeof(uint16_t)));
  if (memory == nullptr) return TK_ERR_MEMORY;
  std::memcpy(memory, best.data(), best.size() * sizeof(uint16_t));
  *words = memory;
  *num_words = static_cast<int64_t>(best.size());
  return TK_OK;
}

}  // namespace
}  // namespace toolkit

extern "C" {

int32_t tk_small_info(const uint16_t* words, int64_t num_words, int32_t* coder, int64_t* num_symbols) {
  if (coder == nullptr || num_symbols == nullptr) return TK_ERR_ARGUMENT;
  try {
    const uint16_t* body = nullptr;
    int64_t body_words = 0;
    int found = 0;
    const tk_status status = toolkit::open_blob(words, num_words, &found, &body, &body_words, num_symbols);
    if (status != TK_OK) return status;
    *coder = found;
    return TK_OK;
  } catch (const std::bad_alloc&) {
    return TK_ERR_MEMORY;
  }
}

int32_t tk_small_decode(const uint16_t* words, int64_t num_words, int16_t* out, int64_t num_symbols) {
  if (out == nullptr) return TK_ERR_ARGUMENT;
  try {
    const uint16_t* body = nullptr;
    int64_t body_words = 0;
    int64_t n = 0;
    int coder = 0;
    const tk_status status = toolkit::open_blob(words, num_words, &coder, &body, &body_words, &n);
    if (status != TK_OK) return status;
    if (n != num_symbols) return TK_ERR_ARGUMENT;
    return toolkit::decode_body(coder, body, body_words, out);
  } catch (const std::bad_alloc&) {
    return TK_ERR_MEMORY;
  }
}

int32_t tk_small_encode(const int16_t* symbols, int64_t n, int32_t coder, int64_t row_length, uint16_t** words,
                        int64_t* num_words) {
  if (symbols == nullptr || words == nullptr || num_words == nullptr) return TK_ERR_ARGUMENT;
  if (n < 1 || n > toolkit::kMaxSmallSymbols || row_length < 0) return TK_ERR_ARGUMENT;
  if (coder != 0 && (coder < toolkit::kCoderAdaptive || coder > toolkit::kCoderFixed)) return TK_ERR_ARGUMENT;
  try {
    return toolkit::encode_blob(symbols, n, coder, row_length, words, num_words);
  } catch (const std::bad_alloc&) {
    return TK_ERR_MEMORY;
  }
}

}  // extern "C"
