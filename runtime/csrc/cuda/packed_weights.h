// Packing of weights on the host, and products with them there.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_PACKED_WEIGHTS_H
#define TOOLKIT_CUDA_PACKED_WEIGHTS_H

#include <cstdint>

namespace toolkit::cuda {

// 32-bit words of a packed weight.
int64_t packed_words(int64_t outputs, int64_t inputs, int bits);

// Packs fields, one a byte, [outputs, inputs]; false where one does not fit `bits`.
bool pack_fields(const uint8_t* fields, int64_t outputs, int64_t inputs, int bits, uint32_t* packed);

// Takes out the fields of the inputs of one output.
void unpack_output(const uint32_t* packed, int64_t output, int64_t inputs, int bits, uint8_t* fields);

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_PACKED_WEIGHTS_H
