// Sums of absolute symbols along the axes of tensors.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_MARGINS_H
#define TOOLKIT_WIDE_MARGINS_H

#include <vector>

#include "wide_model.h"

namespace toolkit::wide {

struct Margins {
  std::vector<double> row, col;  // [A*B], [C]: integers
  double total = 0;
};

std::vector<Margins> margins_of(const std::vector<TensorPlan>& plans, int threads);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_MARGINS_H
