// A packed weight as numbers again, for the provider's own operators.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_PACKED_UNPACK_H
#define TOOLKIT_CUDA_PACKED_UNPACK_H

#include "packed_layout.h"

namespace toolkit::cuda {

// Addresses are of the device's memory, or the host's for the executor. Value is float, or uint16_t for float16.
template <class Value>
struct UnpackJob {
  const uint32_t* packed;
  const Value* scales;    // [groups, outputs]
  const Value* zeros;     // of the scales' shape; null where there is a codebook
  const Value* codebook;  // [2^bits]; null where fields are numbers
  Value* out;             // [outputs, inputs]
  int32_t outputs, inputs;
  int32_t group_inputs;  // inputs that share a scale, a multiple of kSpanInputs, or all
  int32_t bits;
};

template <class Value>
UnpackJob<Value> unpack_job(const tk_unpacking& u) {
  return {
      static_cast<const uint32_t*>(u.packed), static_cast<const Value*>(u.scales),  static_cast<const Value*>(u.zeros),
      static_cast<const Value*>(u.codebook),  static_cast<Value*>(u.out),           static_cast<int32_t>(u.outputs),
      static_cast<int32_t>(u.inputs),         static_cast<int32_t>(u.group_inputs), u.bits};
}

TK_WARP float number_of(float value) { return value; }
TK_WARP float number_of(uint16_t bits) { return from_float16(bits); }
TK_WARP void round_to(float value, float* to) { *to = value; }
TK_WARP void round_to(float value, uint16_t* to) { *to = float16_bits(value); }

// Writes eight neighbours, of which `count` are there.
template <class Value>
TK_WARP void put_eight(const Value* values, int count, Value* to) {
  constexpr int kWidth = 16 / sizeof(Value);
  if (count == 8 && reinterpret_cast<uintptr_t>(to) % 16 == 0) {
#if defined(__CUDACC__)
#pragma unroll
#endif
    for (int i = 0; i < 8; i += kWidth) {
      Bytes16 bytes;
      memcpy(&bytes, values + i, sizeof bytes);
      *reinterpret_cast<Bytes16*>(to + i) = bytes;
    }
    return;
  }
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < 8; ++i)
    if (i < count) to[i] = values[i];
}

// What a lane has of a chunk of a tile: scale * (field - zero) or scale * codebook[field], in float32 and rounded once.
template <int kBits, class Value>
TK_WARP void unpack_lane(const UnpackJob<Value>& job, int tile, int chunk, int lane) {
  const int64_t chunks = (job.inputs + chunk_inputs(kBits) - 1) / chunk_inputs(kBits);
  const LaneFields<kBits> fields = load_fields<kBits>(job.packed + (tile * chunks + chunk) * chunk_words(kBits), lane);
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int span = 0; span < products_of(kBits) / 2; ++span) {
    const int input = chunk * chunk_inputs(kBits) + span * kSpanInputs + lane_input(lane);
    if (input >= job.inputs) break;
#if defined(__CUDACC__)
#pragma unroll
#endif
    for (int half = 0; half < 2; ++half) {
      const int output = tile * kTileOutputs + lane / 4 + 8 * half;
      if (output >= job.outputs) break;
      const int64_t at = group_of(job, input) + output;
      const float scale = number_of(job.scales[at]), zero = job.codebook ? 0 : number_of(job.zeros[at]);
      Value values[8];
#if defined(__CUDACC__)
#pragma unroll
#endif
      for (int i = 0; i < 8; ++i) {
        const uint32_t pair = field_pair<kBits>(fields, 2 * span + i / 4, half + i % 4 / 2 * 2);
        const uint32_t field = i % 2 ? pair >> 16 : pair & 0xffff;
        const float value = job.codebook ? number_of(job.codebook[field]) : static_cast<float>(field) - zero;
        round_to(multiply(value, scale), values + i);
      }
      const int left = job.inputs - input;
      put_eight(values, left < 8 ? left : 8, job.out + static_cast<int64_t>(output) * job.inputs + input);
    }
  }
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_PACKED_UNPACK_H
