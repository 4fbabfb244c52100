// What a warp is to the block decoder: on the device the hardware's, on the host an executor of its 32 lanes in turn.
// SPDX-License-Identifier: Apache-2.0
//
// The decoder is written as phases: `warp.each(f)` runs f(lane) for every lane, `warp.ballot(f)` gathers a bit of each.
// Values that a lane keeps from phase to phase are PerLane. On the device a lane is a thread and PerLane a register.
#ifndef TOOLKIT_CUDA_WARP_POLICY_H
#define TOOLKIT_CUDA_WARP_POLICY_H

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define TK_WARP __device__ __forceinline__
#define TK_WARP_CALL __device__ __noinline__
#else
#include "dequantize.h"
#include "half_float.h"
#define TK_WARP inline
#define TK_WARP_CALL inline
#endif

namespace toolkit::cuda {

inline constexpr int kWarpLanes = 32;

struct alignas(16) Bytes16 {
  uint32_t word[4];
};
struct alignas(8) Bytes8 {
  uint32_t word[2];
};

#if defined(__CUDACC__)

struct DeviceWarp {
  int lane;

  template <class T>
  struct PerLane {
    T value;
    TK_WARP T& operator[](int) { return value; }
    TK_WARP const T& operator[](int) const { return value; }
  };
  template <class F>
  TK_WARP void each(F f) const {
    f(lane);
  }
  template <class F>
  TK_WARP uint32_t ballot(F f) const {
    return __ballot_sync(0xffffffffu, f(lane));
  }
  // Orders the lanes' accesses to shared memory.
  TK_WARP void sync() const { __syncwarp(); }
  // `status` may lie in the host's memory: a plain store, of which any may win.
  TK_WARP void report(uint32_t* status, uint32_t code) const { *static_cast<volatile uint32_t*>(status) = code; }
};

TK_WARP int count_bits(uint32_t mask) { return __popc(mask); }
// Byte z (0-7) of eight, the last of which is zero.
TK_WARP uint32_t byte_of(Bytes8 bytes, int z) {
  uint32_t byte;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(byte) : "r"(bytes.word[0]), "r"(bytes.word[1]), "r"(0x7770 | z));
  return byte;
}
// Moves four bytes down and puts the low byte of `value` on top.
TK_WARP uint32_t push_byte(uint32_t packed, int value) { return __byte_perm(packed, value, 0x4321); }
TK_WARP uint32_t push_half(uint32_t packed, int value) { return __byte_perm(packed, value, 0x5432); }
TK_WARP float multiply(float a, float b) { return __fmul_rn(a, b); }
TK_WARP uint16_t float16_bits(float value) { return __half_as_ushort(__float2half_rn(value)); }
TK_WARP uint16_t bfloat16_bits(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
TK_WARP float from_float16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

#else

struct HostWarp {
  template <class T>
  struct PerLane {
    T values[kWarpLanes];
    T& operator[](int lane) { return values[lane]; }
    const T& operator[](int lane) const { return values[lane]; }
  };
  template <class F>
  void each(F f) const {
    for (int lane = 0; lane < kWarpLanes; ++lane) f(lane);
  }
  template <class F>
  uint32_t ballot(F f) const {
    uint32_t mask = 0;
    for (int lane = 0; lane < kWarpLanes; ++lane) mask |= static_cast<uint32_t>(f(lane)) << lane;
    return mask;
  }
  void sync() const {}
  void report(uint32_t* status, uint32_t code) const {
    if (code > *status) *status = code;
  }
};

inline int count_bits(uint32_t mask) { return __builtin_popcount(mask); }
inline uint32_t byte_of(Bytes8 bytes, int z) { return bytes.word[z / 4] >> (z % 4 * 8) & 0xff; }
inline uint32_t push_byte(uint32_t packed, int value) { return packed >> 8 | static_cast<uint32_t>(value) << 24; }
inline uint32_t push_half(uint32_t packed, int value) { return packed >> 16 | static_cast<uint32_t>(value) << 16; }
inline float multiply(float a, float b) { return a * b; }
inline uint16_t float16_bits(float value) { return to_float16(value); }
inline uint16_t bfloat16_bits(float value) { return to_bfloat16(value); }
inline float from_float16(uint16_t bits) { return float_from_half(bits); }

#endif

TK_WARP float from_bfloat16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}
TK_WARP uint32_t lanes_below(int lane) { return (1u << lane) - 1; }
TK_WARP uint32_t lesser(uint32_t a, uint32_t b) { return a < b ? a : b; }

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_POLICY_H
