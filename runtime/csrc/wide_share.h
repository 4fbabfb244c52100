// Which classes and contexts share a table.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_SHARE_H
#define TOOLKIT_WIDE_SHARE_H

#include "wide_model.h"

namespace toolkit::wide {

// Merges tables of alike symbols: what that costs in code words it gives back in side information or, within a limit,
// in speed, since decoders work from a cache. Fills the maps of the sets from their counts and returns the counts of
// the shared tables, at least one and at most kMaxTables.
Counts share_tables(const std::vector<Counts>& counts, std::vector<SetPlan>* sets);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_SHARE_H
