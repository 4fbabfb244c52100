// The table sets of a segment, made from the plans of its tensors.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_SETS_H
#define TOOLKIT_WIDE_SETS_H

#include <vector>

#include "wide_model.h"

namespace toolkit::wide {

// Counts the symbols and makes sets with their tables. Numbers of sets and bases of classes in the plans follow.
// `tables` takes those that the sets share.
std::vector<SetPlan> make_sets(int resolution, int threads, std::vector<TensorPlan>* plans, TablesPlan* tables);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_SETS_H
