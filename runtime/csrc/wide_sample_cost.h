// What a plan would cost, estimated from a sample of the tensor's rows.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_SAMPLE_COST_H
#define TOOLKIT_WIDE_SAMPLE_COST_H

#include "wide_model.h"

namespace toolkit::wide {

// Bits of a tensor, with one context and with five.
struct SampleBits {
  double plain = 0, with_contexts = 0;
};

// Bits of a sample coded with its own statistics by class and context, and a share of what the statistics cost.
class SampleCost {
 public:
  // `five`: a set of five contexts and all classes.
  explicit SampleCost(const SetPlan& five) : five_(five), counts_(five.entries()) {}

  SampleBits bits(const TensorPlan& plan);

 private:
  const SetPlan& five_;
  Counts counts_;  // all zero between calls
};

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_SAMPLE_COST_H
