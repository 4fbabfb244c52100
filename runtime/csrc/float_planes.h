// Byte planes back to floats (FORMAT.md 6).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_FLOAT_PLANES_H
#define TOOLKIT_FLOAT_PLANES_H

#include <cstddef>
#include <cstdint>

#include "threads.h"

namespace toolkit {

// planes[p] are the bytes of u from the top, where u is the number's bit pattern turned left by one, so that its top
// byte is the whole exponent. Plane 0 is stored as byte - 128.
template <typename Bits>
void join_planes(const uint8_t* const* planes, int64_t count, int threads, Bits* out) {
  constexpr int kBits = 8 * sizeof(Bits);
  constexpr int64_t kPiece = int64_t{1} << 16;
  parallel_for((count + kPiece - 1) / kPiece, threads, [&](int64_t begin, int64_t end) {
    const int64_t last = end * kPiece < count ? end * kPiece : count;
    for (int64_t i = begin * kPiece; i < last; ++i) {
      Bits u = static_cast<uint8_t>(planes[0][i] ^ 0x80u);
      for (size_t plane = 1; plane < sizeof(Bits); ++plane) u = static_cast<Bits>(u << 8 | planes[plane][i]);
      out[i] = static_cast<Bits>(u >> 1 | u << (kBits - 1));
    }
  });
}

}  // namespace toolkit

#endif  // TOOLKIT_FLOAT_PLANES_H
