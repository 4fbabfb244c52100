// CRC-32: slicing by 16, and folding by carry-less multiplication where the processor has it.
// SPDX-License-Identifier: Apache-2.0
#include "crc32.h"

#include <array>
#include <cstddef>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define TOOLKIT_CRC_FOLDING
#include <immintrin.h>
#endif

namespace toolkit {
namespace {

using CrcTables = std::array<std::array<uint32_t, 256>, 16>;

// tables[k][b] is the CRC register after byte b and k zero bytes.
constexpr CrcTables make_crc_tables() {
  CrcTables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? 0xEDB88320u : 0u);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 16; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr CrcTables kCrc = make_crc_tables();

// The CRC of four bytes followed by 4 * behind bytes of the same group of sixteen.
inline uint32_t slice(uint32_t word, size_t behind) {
  const size_t k = 4 * behind;
  return kCrc[k + 3][word & 0xFF] ^ kCrc[k + 2][(word >> 8) & 0xFF] ^ kCrc[k + 1][(word >> 16) & 0xFF] ^
         kCrc[k][word >> 24];
}

// The register after the bytes.
uint32_t update(uint32_t crc, const uint8_t* data, int64_t num_bytes) {
  for (; num_bytes >= 16; num_bytes -= 16, data += 16) {
    uint32_t part[4];
    std::memcpy(part, data, sizeof(part));
    crc = slice(part[0] ^ crc, 3) ^ slice(part[1], 2) ^ slice(part[2], 1) ^ slice(part[3], 0);
  }
  for (; num_bytes > 0; --num_bytes, ++data) crc = (crc >> 8) ^ kCrc[0][(crc ^ *data) & 0xFF];
  return crc;
}

#ifdef TOOLKIT_CRC_FOLDING

// Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009), with the
// constants of the bit-reflected polynomial: x^n mod P for the distances over which a register is folded.
#define TOOLKIT_FOLDING __attribute__((target("pclmul,sse4.1")))

TOOLKIT_FOLDING inline __m128i load(const uint8_t* data) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
}

// The register moved over the distance of `by`, then the next bytes.
TOOLKIT_FOLDING inline __m128i fold(__m128i x, __m128i by, __m128i next) {
  const __m128i low = _mm_clmulepi64_si128(x, by, 0x00), high = _mm_clmulepi64_si128(x, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

// As update(); num_bytes is a multiple of 16, at least 64.
TOOLKIT_FOLDING uint32_t update_folding(uint32_t crc, const uint8_t* data, int64_t num_bytes) {
  const __m128i over64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), over16 = _mm_set_epi64x(0xccaa009e, 0x1751997d0);
  __m128i x0 = _mm_xor_si128(load(data), _mm_cvtsi32_si128(static_cast<int>(crc)));
  __m128i x1 = load(data + 16), x2 = load(data + 32), x3 = load(data + 48);
  for (data += 64, num_bytes -= 64; num_bytes >= 64; data += 64, num_bytes -= 64) {
    x0 = fold(x0, over64, load(data));
    x1 = fold(x1, over64, load(data + 16));
    x2 = fold(x2, over64, load(data + 32));
    x3 = fold(x3, over64, load(data + 48));
  }
  __m128i x = fold(fold(fold(x0, over16, x1), over16, x2), over16, x3);
  for (; num_bytes >= 16; data += 16, num_bytes -= 16) x = fold(x, over16, load(data));
  // From 128 bits to 64, then Barrett's reduction to 32.
  const __m128i even = _mm_setr_epi32(-1, 0, -1, 0);
  x = _mm_xor_si128(_mm_srli_si128(x, 8), _mm_clmulepi64_si128(x, over16, 0x10));
  const __m128i over4 = _mm_set_epi64x(0, 0x163cd6124);
  x = _mm_xor_si128(_mm_srli_si128(x, 4), _mm_clmulepi64_si128(_mm_and_si128(x, even), over4, 0x00));
  const __m128i barrett = _mm_set_epi64x(0x1f7011641, 0x1db710641);
  const __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(x, even), barrett, 0x10);
  x = _mm_xor_si128(x, _mm_clmulepi64_si128(_mm_and_si128(quotient, even), barrett, 0x00));
  return static_cast<uint32_t>(_mm_extract_epi32(x, 1));
}

bool can_fold() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

#endif

}  // namespace

uint32_t crc32(const void* data, int64_t num_bytes) {
  const auto* at = static_cast<const uint8_t*>(data);
  uint32_t crc = 0xFFFFFFFFu;
#ifdef TOOLKIT_CRC_FOLDING
  static const bool folds = can_fold();
  if (folds && num_bytes >= 64) {
    const int64_t whole = num_bytes / 16 * 16;
    crc = update_folding(crc, at, whole);
    at += whole;
    num_bytes -= whole;
  }
#endif
  return ~update(crc, at, num_bytes);
}

}  // namespace toolkit
