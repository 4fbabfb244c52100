// Decoding of a tensor fused with dequantisation or codebook lookup.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_DEQUANTIZE_H
#define TOOLKIT_DEQUANTIZE_H

#include "wide_format.h"

namespace toolkit {

// Bytes of an element, 0 for a type that is not a tk_float_type.
int64_t float_size(int32_t type);

struct Codebook {
  const void* entries;
  int64_t count, offset;
  int32_t elem_bytes;
};

// What becomes of symbols that lie in memory, int8 or int16: the values first .. first + count - 1 of a tensor. Both
// write to where the tensor begins; look_up returns false on a symbol outside the codebook.
template <class Symbol>
void dequantize(const tk_dequantize& how, const Symbol* symbols, int64_t first, int64_t count, void* tensor);
template <class Symbol>
bool look_up(const Codebook& book, const Symbol* symbols, int64_t first, int64_t count, void* tensor);

namespace wide {

// Pieces that a tensor can be decoded in one by one, in any order.
int64_t piece_count(const Segment& segment, const Tensor& tensor);

// Decode pieces begin .. end - 1 on the calling thread, to where the tensor begins. decode_pieces leaves the symbols as
// they are, int8 or int16, `num_values` of them.
tk_status decode_pieces(const Segment& segment, const Tensor& tensor, int64_t num_values, int64_t begin, int64_t end,
                        void* out, tk_isa isa);
tk_status dequantize_pieces(const Segment& segment, const Tensor& tensor, const tk_dequantize& how, int64_t begin,
                            int64_t end, void* out, tk_isa isa);
tk_status look_up_pieces(const Segment& segment, const Tensor& tensor, const Codebook& codebook, int64_t num_values,
                         int64_t begin, int64_t end, void* out, tk_isa isa);

// The same for all pieces of a tensor.
tk_status decode_dequantize(const Segment& segment, const Tensor& tensor, const tk_dequantize& how, void* out,
                            int threads, tk_isa isa);
tk_status decode_lookup(const Segment& segment, const Tensor& tensor, const Codebook& codebook, int64_t num_values,
                        void* out, int threads, tk_isa isa);

}  // namespace wide
}  // namespace toolkit

#endif  // TOOLKIT_DEQUANTIZE_H
