// How packed weights lie in memory: in the order in which the tensor cores of a warp take them.
// SPDX-License-Identifier: Apache-2.0
//
// A weight [outputs, inputs] of fields of 2, 4 or 8 bits is cut into tiles of 16 outputs and chunks of 256 / bits
// inputs. A chunk of a tile is 512 bytes, 16 for each lane of a warp, so that one load feeds 16 / bits products of 16 x
// 16 by 16 x 8 (mma.m16n8k16). Products may take inputs in any order, so a lane's are neighbours: with c = lane % 4 and
// T = 16 / bits, product t of a chunk takes its inputs c * 4T + 4t + 0 .. 3, and of outputs lane / 4 and lane / 4 + 8.
#ifndef TOOLKIT_CUDA_PACKED_LAYOUT_H
#define TOOLKIT_CUDA_PACKED_LAYOUT_H

#include "cuda_api.h"
#include "warp_policy.h"
#include "wide_step.h"

namespace toolkit::cuda {

inline constexpr int kTileOutputs = 16, kTileBatch = 8;  // of one product
inline constexpr int kPackedWarps = 8;                   // of a thread block, which share the inputs of one tile

TK_HOST_DEVICE constexpr int products_of(int bits) { return 16 / bits; }
TK_HOST_DEVICE constexpr int chunk_inputs(int bits) { return 256 / bits; }

// Pair i (0-3) of product t in a lane's 16 bytes, a field in each half of the result: the pairs of the registers of the
// product's first factor. Pairs 0 and 2 belong to output lane / 4, 1 and 3 to lane / 4 + 8; pair i holds the lane's
// inputs 2 * (i / 2) and 2 * (i / 2) + 1 of the product.
template <int kBits>
TK_WARP uint32_t field_pair(const Bytes16& bytes, int t, int i) {
  if constexpr (kBits == 8) {
    return bytes.word[2 * t + i / 2] >> (8 * (i % 2)) & 0x00ff00ff;
  } else if constexpr (kBits == 4) {
    return bytes.word[t] >> (4 * i) & 0x000f000f;
  } else {
    return bytes.word[t / 2] >> (2 * (4 * (t % 2) + i)) & 0x00030003;
  }
}

// Two fields as float16 numbers of 1024 + field: the exponent of 1024 leaves the low bits for units.
TK_WARP uint32_t biased_halves(uint32_t pair) { return pair | 0x64006400; }

// Arguments of a product with packed weights; addresses are of the device's memory, or the host's for the executor.
struct PackedJob {
  const uint16_t* x;         // float16 [batch, inputs]
  const uint32_t* packed;    // tiles, chunks, lanes, 4
  const uint16_t* scales;    // float16 [groups, outputs]
  const uint16_t* zeros;     // float16 [groups, outputs], of fields; null where all are `zero`
  const uint16_t* codebook;  // float16 [2^bits]; null where fields are numbers
  uint16_t* out;             // float16 [batch, outputs]
  int32_t batch, outputs, inputs, bits;
  int32_t group_inputs;  // inputs that share a scale, a multiple of a chunk's, or all
  int32_t zero;
};

// Of a product that tk_packed_check has found right.
inline PackedJob packed_job(const tk_packed& p) {
  return {static_cast<const uint16_t*>(p.x),
          static_cast<const uint32_t*>(p.packed),
          static_cast<const uint16_t*>(p.scales),
          static_cast<const uint16_t*>(p.zeros),
          static_cast<const uint16_t*>(p.codebook),
          static_cast<uint16_t*>(p.out),
          static_cast<int32_t>(p.batch),
          static_cast<int32_t>(p.outputs),
          static_cast<int32_t>(p.inputs),
          p.bits,
          static_cast<int32_t>(p.group_inputs),
          p.zero};
}

inline int packed_tiles(int64_t outputs) { return static_cast<int>((outputs + kTileOutputs - 1) / kTileOutputs); }
inline int packed_chunks(int64_t inputs, int bits) {
  return static_cast<int>((inputs + chunk_inputs(bits) - 1) / chunk_inputs(bits));
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_PACKED_LAYOUT_H
