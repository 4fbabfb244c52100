// Decoding of a tensor fused with dequantisation or codebook lookup.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_DEQUANTIZE_H
#define TOOLKIT_DEQUANTIZE_H

#include "wide_format.h"

namespace toolkit {

// Bytes of an element, 0 for a type that is not a tk_float_type.
int64_t float_size(int32_t type);

// float32 to float16 and bfloat16 bits, rounded to nearest even, as ONNX's Cast does.
uint16_t to_float16(float value);
uint16_t to_bfloat16(float value);

namespace wide {

struct Codebook {
  const void* entries;
  int64_t count, offset;
  int32_t elem_bytes;
};

tk_status decode_dequantize(const Segment& segment, const Tensor& tensor, const tk_dequantize& how, void* out,
                            int threads, tk_isa isa);
tk_status decode_lookup(const Segment& segment, const Tensor& tensor, const Codebook& codebook, int64_t num_values,
                        void* out, int threads, tk_isa isa);

}  // namespace wide
}  // namespace toolkit

#endif  // TOOLKIT_DEQUANTIZE_H
