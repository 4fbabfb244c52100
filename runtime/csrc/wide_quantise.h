// Counts turned into the frequencies that a table can store (FORMAT.md 2.5).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_QUANTISE_H
#define TOOLKIT_WIDE_QUANTISE_H

#include "wide_model.h"

namespace toolkit::wide {

// Codes and frequencies of every table of the set from its counts.
TablesPlan make_tables(const Counts& counts);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_QUANTISE_H
