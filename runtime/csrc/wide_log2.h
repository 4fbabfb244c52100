// Logarithms that are the same on every machine: those of C libraries differ in their last bits, which can decide a
// choice between two tables.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_LOG2_H
#define TOOLKIT_WIDE_LOG2_H

#include <cstdint>

namespace toolkit::wide {

// Of x > 0.
double log2_of(double x);

// Of counts n > 0, the smaller ones from a table of floats.
double log2_of_count(uint32_t n);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_LOG2_H
