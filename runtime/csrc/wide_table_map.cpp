// Which table each symbol of a tensor is coded with, for the encoder.
// SPDX-License-Identifier: Apache-2.0
#include "wide_table_map.h"

#include <algorithm>

#include "wide_step.h"

namespace toolkit::wide {
namespace {

struct Range {
  int low = 0, high = 0;
};

Range range_of(const std::vector<int8_t>& values) {
  if (values.empty()) return {};
  // Both at once as std::minmax_element finds them would not become vector code.
  int8_t low = values[0], high = values[0];
  for (const int8_t v : values) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  return {low, high};
}

}  // namespace

TableMap::TableMap(const TensorPlan& plan, const SetPlan& set)
    : symbols_(plan.symbols),
      quantisers_(set.quantisers > 1 ? plan.quantisers : nullptr),
      row_length_(plan.c),
      contexts_(set.contexts > 1),
      width_((contexts_ ? 256 : 1) * set.quantisers) {
  const Range a = range_of(plan.class_a), b = range_of(plan.class_b), c = range_of(plan.class_c);
  lowest_row_ = row_class_of(plan.base + a.low + b.low);
  lowest_column_ = c.low;
  highest_column_ = c.high;
  columns_.resize(plan.class_c.size());
  std::transform(plan.class_c.begin(), plan.class_c.end(), columns_.begin(),
                 [&](int8_t offset) { return (offset - c.low) * width_; });
  const int lowest = lowest_row_ + c.low, highest = row_class_of(plan.base + a.high + b.high) + c.high;
  first_class_ = class_of(lowest, 0, set.classes);
  last_class_ = class_of(highest, 0, set.classes);
  map_.resize(static_cast<size_t>((highest - lowest + 1) * width_));
  uint32_t* to = map_.data();
  for (int i = lowest; i <= highest; ++i) {
    const int y = class_of(i, 0, set.classes);
    const int t1 = set.t1[static_cast<size_t>(y)], t2 = set.t2[static_cast<size_t>(y)];
    for (int previous = 0; previous < width_ / set.quantisers; ++previous) {
      const int z = contexts_ ? context_of(static_cast<int8_t>(previous), t1, t2) : 0;
      for (int q = 0; q < set.quantisers; ++q) {
        const int place = set.place_of(y, z, q);
        *to++ = static_cast<uint32_t>((set.map.empty() ? place : set.map[static_cast<size_t>(place)]) * 256 + 128);
      }
    }
  }
}

std::vector<TableMap> table_maps(const std::vector<TensorPlan>& plans, const std::vector<SetPlan>& sets) {
  std::vector<TableMap> maps;
  maps.reserve(plans.size());
  for (const auto& p : plans) maps.emplace_back(p, sets[static_cast<size_t>(p.set)]);
  return maps;
}

}  // namespace toolkit::wide
