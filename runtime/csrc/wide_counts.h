// Counts of the symbols by set and table.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_COUNTS_H
#define TOOLKIT_WIDE_COUNTS_H

#include <vector>

#include "wide_model.h"

namespace toolkit::wide {

// Counts of every set over all tensors.
std::vector<Counts> count_symbols(const std::vector<TensorPlan>& plans, const std::vector<SetPlan>& sets, int threads);

// Classes of a set whose symbols are to be counted: those below `low` and those above `high`.
struct OuterClasses {
  int low, high;
};

// Adds to the counts the symbols of outer classes, by set. They count as symbols of the first or the last class.
void add_outer_classes(const std::vector<TensorPlan>& plans, const std::vector<SetPlan>& sets,
                       const std::vector<OuterClasses>& outer, int threads, std::vector<Counts>* counts);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_COUNTS_H
