// What a warp is to the block decoder: on the device the hardware's, on the host an executor of its 32 lanes in turn.
// SPDX-License-Identifier: Apache-2.0
//
// The decoder is written as phases: `warp.each(f)` runs f(lane) for every lane, `warp.ballot(f)` gathers a bit of each.
// Values that a lane keeps from phase to phase are PerLane. On the device a lane is a thread and PerLane a register.
#ifndef TOOLKIT_CUDA_WARP_POLICY_H
#define TOOLKIT_CUDA_WARP_POLICY_H

#include <cstdint>
#include <cstring>

#include "wide_step.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define TK_WARP __device__ __forceinline__
#define TK_WARP_BOTH __host__ __device__ inline
#else
#include "half_float.h"
#define TK_WARP inline
#define TK_WARP_BOTH inline
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
  // Whether f(lane), the same for all lanes, is true, known to the compiler to be the same for all.
  template <class F>
  TK_WARP bool any(F f) const {
    return __any_sync(0xffffffffu, f(lane));
  }
  // Orders the lanes' accesses to shared memory.
  TK_WARP void sync() const { __syncwarp(); }
  // A value that all lanes have, known to the compiler as such: what is decided by it needs no care for divergence.
  TK_WARP uint32_t uniform(uint32_t value) const {
#if __CUDA_ARCH__ >= 800
    return __reduce_or_sync(0xffffffffu, value);
#else
    return __shfl_sync(0xffffffffu, value, 0);
#endif
  }
  // `status` may lie in the host's memory: a plain store, of which any may win.
  TK_WARP void report(uint32_t* status, uint32_t code) const { *static_cast<volatile uint32_t*>(status) = code; }
};

TK_WARP int count_bits(uint32_t mask) { return __popc(mask); }
// wide::class_of in one instruction where there is one.
TK_WARP int class_of(int row_class, int col_class, int classes) {
  return __viaddmin_s32_relu(row_class, col_class, classes - 1);
}
// wide::with_word for a state that needs one.
TK_WARP void take_word(uint32_t* x, uint32_t word) {
  asm("{\n .reg .pred %%full;\n setp.gt.u32 %%full, %0, 65535;\n @!%%full prmt.b32 %0, %1, %0, 0x5410;\n}"
      : "+r"(*x)
      : "r"(word));
}
// base + 4 * index
TK_WARP uint32_t word_address(uint32_t base, uint32_t index) {
  uint32_t at;
  asm("mad.lo.u32 %0, %1, 4, %2;" : "=r"(at) : "r"(index), "r"(base));
  return at;
}
TK_WARP uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }
// Moves four bytes down and puts a byte (0-3) of `value` on top.
template <int kByte>
TK_WARP uint32_t push_byte(uint32_t packed, uint32_t value) {
  return __byte_perm(packed, value, 0x4321 + (kByte << 12));
}
TK_WARP uint32_t push_half(uint32_t packed, uint32_t value) { return __byte_perm(packed, value, 0x5432); }
// Byte j (0-3) as a signed number.
TK_WARP int signed_byte(uint32_t bytes, uint32_t j) {
  int value;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(value) : "r"(bytes), "r"(0x8880 + 0x1111 * j));
  return value;
}
// To global memory in one instruction, which the compiler otherwise divides.
TK_WARP void store16(void* to, const Bytes16& from) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(to)), "r"(from.word[0]), "r"(from.word[1]), "r"(from.word[2]),
                 "r"(from.word[3])
               : "memory");
}
// (word & mask) | others in one instruction, which takes but one of two constants from its own bits.
TK_WARP uint32_t chosen_or(uint32_t word, uint32_t mask, uint32_t others) {
  uint32_t bits;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(bits) : "r"(word), "r"(mask), "r"(others));
  return bits;
}
// Byte k (0-3) of a word as the lowest one beside the upper three of `upper`, of which the lowest two are zero.
TK_WARP uint32_t byte_beside(uint32_t word, uint32_t k, uint32_t upper) { return __byte_perm(word, upper, 0x7650 + k); }
TK_WARP float multiply(float a, float b) { return __fmul_rn(a, b); }
TK_WARP float add(float a, float b) { return __fadd_rn(a, b); }
TK_WARP uint32_t float16_pair(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return __half_as_ushort(__low2half(pair)) | static_cast<uint32_t>(__half_as_ushort(__high2half(pair))) << 16;
}
TK_WARP uint32_t bfloat16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return __bfloat16_as_ushort(__low2bfloat16(pair)) | static_cast<uint32_t>(__bfloat16_as_ushort(__high2bfloat16(pair)))
                                                          << 16;
}
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
  template <class F>
  bool any(F f) const {
    return f(0);
  }
  void sync() const {}
  uint32_t uniform(uint32_t value) const { return value; }
  void report(uint32_t* status, uint32_t code) const {
    if (code > *status) *status = code;
  }
};

inline int count_bits(uint32_t mask) { return __builtin_popcount(mask); }
inline int class_of(int row_class, int col_class, int classes) { return wide::class_of(row_class, col_class, classes); }
inline void take_word(uint32_t* x, uint32_t word) {
  if (wide::needs_word(*x)) *x = wide::with_word(*x, word);
}
inline uint32_t word_address(uint32_t base, uint32_t index) { return base + 4 * index; }
inline uint32_t multiply_high(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}
template <int kByte>
inline uint32_t push_byte(uint32_t packed, uint32_t value) {
  return packed >> 8 | value >> (8 * kByte) << 24;
}
inline uint32_t push_half(uint32_t packed, uint32_t value) { return packed >> 16 | value << 16; }
inline int signed_byte(uint32_t bytes, uint32_t j) { return static_cast<int8_t>(bytes >> (8 * j)); }
inline uint32_t chosen_or(uint32_t word, uint32_t mask, uint32_t others) { return (word & mask) | others; }
inline void store16(void* to, const Bytes16& from) { memcpy(to, &from, sizeof from); }
inline uint32_t byte_beside(uint32_t word, uint32_t k, uint32_t upper) { return upper | (word >> (8 * k) & 0xff); }
inline float multiply(float a, float b) { return a * b; }
inline float add(float a, float b) { return a + b; }
inline uint32_t float16_pair(float low, float high) {
  return half_from_float(low) | static_cast<uint32_t>(half_from_float(high)) << 16;
}
inline uint32_t bfloat16_pair(float low, float high) {
  return bfloat16_from_float(low) | static_cast<uint32_t>(bfloat16_from_float(high)) << 16;
}
inline uint16_t float16_bits(float value) { return half_from_float(value); }
inline uint16_t bfloat16_bits(float value) { return bfloat16_from_float(value); }
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
