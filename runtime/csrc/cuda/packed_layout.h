// How packed weights lie in memory: in the order in which the tensor cores of a warp take them.
// SPDX-License-Identifier: Apache-2.0
//
// A weight [outputs, inputs] of fields of 1 to 8 bits is cut into tiles of 16 outputs and chunks of 256 / h inputs,
// where h is the highest power of two in the number of bits. A field is stored in parts of as many bits as the number
// of bits has powers of two (7 = 4 + 2 + 1), its lowest bits in the widest part, so that it takes its own width and no
// more. The parts of a chunk follow one another, each with 16, 8 or 4 bytes for each lane of a warp: every load of a
// warp is of 512, 256 or 128 contiguous bytes, at a multiple of 128.
//
// A chunk feeds T = 16 / h products of 16 x 16 by 16 x 8 (mma.m16n8k16). Products may take inputs in any order: two of
// them take 32 neighbours, of which lane % 4 = c has eight, the first four in the even product and the others in the
// odd one. So a scale may change every 32 inputs. Of outputs a lane has lane / 4 and lane / 4 + 8.
#ifndef TOOLKIT_CUDA_PACKED_LAYOUT_H
#define TOOLKIT_CUDA_PACKED_LAYOUT_H

#include "cuda_api.h"
#include "warp_policy.h"
#include "wide_step.h"

namespace toolkit::cuda {

inline constexpr int kTileOutputs = 16, kTileBatch = 8;  // of one product
inline constexpr int kPackedWarps = 8;                   // of a thread block, which share the inputs of one tile
inline constexpr int kSpanInputs = 32;                   // of two products
inline constexpr int kMostBits = 8;

TK_HOST_DEVICE constexpr int widest_part(int bits) { return bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1; }
TK_HOST_DEVICE constexpr int products_of(int bits) { return 16 / widest_part(bits); }
TK_HOST_DEVICE constexpr int chunk_inputs(int bits) { return 16 * products_of(bits); }
TK_HOST_DEVICE constexpr int lane_words(int bits) { return 4 * bits / widest_part(bits); }  // of a chunk
TK_HOST_DEVICE constexpr int chunk_words(int bits) { return kWarpLanes * lane_words(bits); }
// Of a part of so many bits: the lowest of a field's bits that it holds, the words that a lane has before it, and of
// it.
TK_HOST_DEVICE constexpr int part_bit(int bits, int part) { return bits & ~(2 * part - 1); }
TK_HOST_DEVICE constexpr int part_first(int bits, int part) { return 4 * part_bit(bits, part) / widest_part(bits); }
TK_HOST_DEVICE constexpr int part_words(int bits, int part) { return 4 * part / widest_part(bits); }

// What a lane has of a chunk, part by part.
template <int kBits>
struct LaneFields {
  uint32_t word[lane_words(kBits)];
};

// Loads words that are read once, in one instruction.
template <int kWords>
TK_WARP void load_words(const uint32_t* from, uint32_t* to) {
#if defined(__CUDACC__)
  if constexpr (kWords == 4) {
    const uint4 words = __ldcs(reinterpret_cast<const uint4*>(from));
    to[0] = words.x, to[1] = words.y, to[2] = words.z, to[3] = words.w;
  } else if constexpr (kWords == 2) {
    const uint2 words = __ldcs(reinterpret_cast<const uint2*>(from));
    to[0] = words.x, to[1] = words.y;
  } else {
    to[0] = __ldcs(from);
  }
#else
  memcpy(to, from, kWords * sizeof *to);
#endif
}

template <int kBits, int kPart>
TK_WARP void load_part(const uint32_t* chunk, int lane, LaneFields<kBits>* fields) {
  if constexpr ((kBits & kPart) != 0) {
    constexpr int kFirst = part_first(kBits, kPart), kWords = part_words(kBits, kPart);
    load_words<kWords>(chunk + kWarpLanes * kFirst + lane * kWords, fields->word + kFirst);
  }
}

// A lane's part of a chunk, which lies at a multiple of 16 bytes.
template <int kBits>
TK_WARP LaneFields<kBits> load_fields(const uint32_t* chunk, int lane) {
  LaneFields<kBits> fields;
  load_part<kBits, 8>(chunk, lane, &fields);
  load_part<kBits, 4>(chunk, lane, &fields);
  load_part<kBits, 2>(chunk, lane, &fields);
  load_part<kBits, 1>(chunk, lane, &fields);
  return fields;
}

// A part holds pairs of fields in the order of their numbers: a pair's first field in the lower half of a word, its
// second at the same place in the upper half.
template <int kBits, int kPart>
TK_WARP uint32_t part_of_pair(const LaneFields<kBits>& fields, int pair) {
  if constexpr ((kBits & kPart) == 0) {
    return 0;
  } else {
    constexpr int kPairs = 16 / kPart, kBit = part_bit(kBits, kPart);
    constexpr uint32_t kMask = ((1u << kPart) - 1) * 0x00010001u << kBit;
    const uint32_t word = fields.word[part_first(kBits, kPart) + pair / kPairs];
    const int shift = pair % kPairs * kPart - kBit;
    return (shift >= 0 ? word >> shift : word << -shift) & kMask;
  }
}

// Pair i (0-3) of product t of a lane, a field in each half of the result: the pairs of the registers of the product's
// first factor. Pairs 0 and 2 belong to output lane / 4, 1 and 3 to lane / 4 + 8; pair i holds the lane's inputs
// 2 * (i / 2) and 2 * (i / 2) + 1 of the product.
template <int kBits>
TK_WARP uint32_t field_pair(const LaneFields<kBits>& fields, int t, int i) {
  const int pair = 4 * t + i;
  return part_of_pair<kBits, 8>(fields, pair) | part_of_pair<kBits, 4>(fields, pair) |
         part_of_pair<kBits, 2>(fields, pair) | part_of_pair<kBits, 1>(fields, pair);
}

// Two fields as float16 numbers of 1024 + field: the exponent of 1024 leaves the low bits for units.
TK_WARP uint32_t biased_halves(uint32_t pair) { return pair | 0x64006400; }

// Fields of one part need not be moved to the lowest bits of a half, whose upper bits are those of 1024: a field f left
// at bit n gives the float16 number 1024 + 2^n f, as long as it ends within the ten bits of the fraction. left_at: the
// bit that such a pair of a lane is left at, 0 for fields of several parts; kLefts: how many such bits there are, all
// multiples of left_step.
TK_HOST_DEVICE constexpr bool has_one_part(int bits) { return (bits & (bits - 1)) == 0; }
TK_HOST_DEVICE constexpr int left_step(int bits) { return bits == 4 ? 4 : 2; }
TK_HOST_DEVICE constexpr int count_of_lefts(int bits) {
  return has_one_part(bits) && bits < 8 ? 8 / left_step(bits) : 1;
}
TK_HOST_DEVICE constexpr int left_at(int bits, int pair) {
  return count_of_lefts(bits) == 1 ? 0 : pair % (16 / bits) * bits % 8 / left_step(bits) * left_step(bits);
}

// Two fields of product t as float16 numbers 1024 + 2^left_at field.
template <int kBits>
TK_WARP uint32_t biased_pair(const LaneFields<kBits>& fields, int t, int i) {
  const int pair = 4 * t + i;
  if constexpr (!has_one_part(kBits)) {
    return biased_halves(field_pair<kBits>(fields, t, i));
  } else {
    constexpr int kPairs = 16 / kBits;
    const uint32_t word = fields.word[pair / kPairs];
    const int left = left_at(kBits, pair), shift = pair % kPairs * kBits - left;
    return chosen_or(word >> shift, ((1u << kBits) - 1) * 0x00010001u << left, 0x64006400);
  }
}

// The first of a lane's eight inputs of two products.
TK_HOST_DEVICE constexpr int lane_input(int lane) { return lane % 4 * 8; }

// Eight float16 inputs of a row of x, those behind the last as zeros. Where rows do not begin at multiples of 16 bytes
// (`aligned` is false) they come one by one.
TK_WARP Bytes16 load_eight(const uint16_t* row, int input, int inputs, bool aligned) {
  Bytes16 eight{{0, 0, 0, 0}};
  if (aligned) {
    if (input < inputs) eight = *reinterpret_cast<const Bytes16*>(row + input);
    return eight;
  }
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < 8; ++i) {
    const uint32_t half = input + i < inputs ? row[input + i] : 0;
    eight.word[i / 2] |= half << (i % 2 * 16);
  }
  return eight;
}

// Arguments of a product with packed weights; addresses are of the device's memory, or the host's for the executor.
struct PackedJob {
  const uint16_t* x;         // float16 [batch, inputs]
  const uint32_t* packed;    // tiles, chunks, parts, lanes, words
  const uint16_t* scales;    // float16 [groups, outputs]
  const uint16_t* zeros;     // float16 [groups, outputs], of fields; null where all are `zero`
  const uint16_t* codebook;  // float16 [2^bits]; null where fields are numbers
  uint16_t* out;             // float16 [batch, outputs]
  int32_t batch, outputs, inputs, bits;
  int32_t group_inputs;  // inputs that share a scale, a multiple of kSpanInputs, or all
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

// Whether rows of x can be read 16 bytes at once.
TK_WARP bool has_aligned_rows(const PackedJob& job) {
  return job.inputs % 8 == 0 && reinterpret_cast<uintptr_t>(job.x) % 16 == 0;
}

// Whether the scale may change within a chunk; else one product of all of it is scaled.
template <int kBits>
TK_WARP bool has_fine_groups(const PackedJob& job) {
  return job.group_inputs < job.inputs && job.group_inputs % chunk_inputs(kBits) != 0;
}

// Where the scales of a chunk's inputs from `input` on begin. Behind the last input are those of the last group.
template <class Job>
TK_WARP int64_t group_of(const Job& job, int input) {
  return static_cast<int64_t>((input < job.inputs ? input : job.inputs - 1) / job.group_inputs) * job.outputs;
}

inline int packed_tiles(int64_t outputs) { return static_cast<int>((outputs + kTileOutputs - 1) / kTileOutputs); }
inline int packed_chunks(int64_t inputs, int bits) {
  return static_cast<int>((inputs + chunk_inputs(bits) - 1) / chunk_inputs(bits));
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_PACKED_LAYOUT_H
