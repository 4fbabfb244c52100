// View, classes and contexts of every tensor, chosen by estimated size.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_PLAN_H
#define TOOLKIT_WIDE_PLAN_H

#include <vector>

#include "wide_model.h"

namespace toolkit::wide {

struct ModelOptions {
  int contexts = 1;  // 0 off, 1 chosen, 2 always
  bool classes = true;
  int resolution = 4;  // classes an octave
};

// Chooses view, class arrays and contexts of each tensor (the kind of its set).
void plan_tensors(const ModelOptions& options, int threads, std::vector<TensorPlan>* plans);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_PLAN_H
