// One coding step of one lane, without a division: the inverse of steps 4 and 5 of FORMAT.md 2.6.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_PUSH_H
#define TOOLKIT_WIDE_PUSH_H

#include <cstdint>

#include "wide_format.h"

namespace toolkit::wide {

// States are divided by a frequency f when they are below f * 2^20. So far, a multiplication by the reciprocal of f,
// rounded up at bit 44, gives the very quotient, and fits 64 bits (proven below).
inline constexpr int kReciprocalBits = 44;
inline constexpr int kQuotientBits = 32 - kProbabilityBits;

constexpr uint64_t reciprocal_of(uint32_t f) { return ((uint64_t{1} << kReciprocalBits) + f - 1) / f; }

// What a symbol of frequency f > 0 does to a state: x -> (x / f) * 4096 + x % f + cum.
struct Divisor {
  uint64_t reciprocal = 0;
  uint32_t limit = 0;       // f * 2^20: larger states first give away a word
  uint16_t complement = 0;  // 4096 - f
  uint16_t cum = 0;         // sum of the frequencies of the symbols below

  Divisor() = default;
  constexpr Divisor(uint32_t f, uint32_t below)
      : reciprocal(reciprocal_of(f)),
        limit(f << kQuotientBits),
        complement(static_cast<uint16_t>(kSlots - f)),
        cum(static_cast<uint16_t>(below)) {}
};

// Moves the low word of *x in front of `to` where `due`; without a branch, which could not be predicted. Writes before
// it decides: there is always room for a word.
inline uint16_t* give_word(bool due, uint32_t* x, uint16_t* to) {
  to[-1] = static_cast<uint16_t>(*x);
  *x = due ? *x >> 16 : *x;
  return to - due;
}

// For x < d.limit. (x / f) * 4096 + x % f = x + (x / f) * (4096 - f).
inline uint32_t push_symbol(uint32_t x, const Divisor& d) {
  const auto quotient = static_cast<uint32_t>(x * d.reciprocal >> kReciprocalBits);
  return x + quotient * d.complement + d.cum;
}

namespace proof {

// With m = (2^44 + e) / f, x * m / 2^44 = x / f + x * e / (f * 2^44). That has the integer part of x / f as long as the
// second term is below 1 / f, the least distance of x / f from the next integer: as long as x * e < 2^44.
constexpr bool quotients_are_exact() {
  for (uint64_t f = 1; f < kSlots; ++f) {
    const uint64_t largest = (f << kQuotientBits) - 1;
    const uint64_t m = reciprocal_of(static_cast<uint32_t>(f));
    const uint64_t e = m * f - (uint64_t{1} << kReciprocalBits);
    if (e >= f || largest * e >> kReciprocalBits != 0 || largest > ~uint64_t{0} / m) return false;
  }
  return true;
}
static_assert(quotients_are_exact(), "a quotient of some state and frequency is wrong");

}  // namespace proof

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_PUSH_H
