// The table sets of a segment: which there are, and which of their classes pay for their tables.
// SPDX-License-Identifier: Apache-2.0
#include "wide_sets.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "wide_counts.h"
#include "wide_log2.h"
#include "wide_quantise.h"
#include "wide_share.h"

namespace toolkit::wide {
namespace {

// Bits of all the tables of one class, from counts, tables included.
double class_bits(const uint32_t* counts, int places) {
  double bits = 0;
  for (int i = 0; i < places; ++i) {
    const uint32_t* n = counts + i * 256;
    uint32_t total = 0;
    double sum = 0;
    int first = -1, last = -1;
    for (int v = 0; v < 256; ++v) {
      if (!n[v]) continue;
      total += n[v];
      sum += n[v] * log2_of_count(n[v]);
      if (first < 0) first = v;
      last = v;
    }
    if (total) bits += total * log2_of_count(total) - sum + 10 + 4.0 * (last - first + 1);
  }
  return bits;
}

struct ClassRange {
  int first, last;
};

// The classes that stay: those at both ends that cost less as part of their neighbours go.
ClassRange find_range(const SetPlan& set, Counts counts) {
  const int width = set.width() * 256;
  int low = 0, high = set.classes - 1;
  const auto at = [&](int y) { return counts.data() + static_cast<size_t>(y) * static_cast<size_t>(width); };
  std::vector<uint32_t> merged(static_cast<size_t>(width));
  const auto merging_pays = [&](int from, int into) {
    for (int i = 0; i < width; ++i) merged[static_cast<size_t>(i)] = at(from)[i] + at(into)[i];
    return class_bits(merged.data(), set.width()) <=
           class_bits(at(from), set.width()) + class_bits(at(into), set.width());
  };
  while (low < high && merging_pays(low, low + 1)) {
    std::copy(merged.begin(), merged.end(), at(low + 1));
    ++low;
  }
  while (high > low && merging_pays(high, high - 1)) {
    std::copy(merged.begin(), merged.end(), at(high - 1));
    --high;
  }
  return {low, high};
}

constexpr int kNoneBelow = std::numeric_limits<int>::min(), kNoneAbove = std::numeric_limits<int>::max();

// Narrows the set to some of its classes. The symbols of the others go to the first or the last one, whose thresholds
// then tell their contexts: where those are the same, so are the contexts, and the counts are added. Returns the
// classes, numbered as in the narrowed set, whose symbols must be counted anew.
OuterClasses keep_classes(const ClassRange& range, SetPlan* set, Counts* counts) {
  const SetPlan before = *set;
  const Counts all = std::move(*counts);
  const std::ptrdiff_t width = set->width() * 256;
  set->classes = range.last - range.first + 1;
  std::copy_n(before.t1.begin() + range.first, set->classes, set->t1.begin());
  std::copy_n(before.t2.begin() + range.first, set->classes, set->t2.begin());
  counts->assign(all.begin() + range.first * width, all.begin() + (range.last + 1) * width);
  OuterClasses outer{kNoneBelow, kNoneAbove};
  for (int y = 0; y < before.classes; ++y) {
    const int into = std::clamp(y, range.first, range.last);
    if (y == into) continue;
    const auto t = [](const auto& thresholds, int i) { return thresholds[static_cast<size_t>(i)]; };
    const bool same = t(before.t1, y) == t(before.t1, into) && t(before.t2, y) == t(before.t2, into);
    if (same || set->contexts == 1) {
      const auto to = counts->begin() + (into - range.first) * width;
      std::transform(to, to + width, all.begin() + y * width, to, std::plus<>());
    } else if (y < into) {
      outer.low = y + 1 - range.first;  // thresholds rise with the class: those of all classes below differ too
    } else {
      outer.high = std::min(outer.high, y - 1 - range.first);
    }
  }
  return outer;
}

// Sets that no tensor uses go; the others move down.
void drop_unused_sets(std::vector<TensorPlan>* plans, std::vector<SetPlan>* sets) {
  for (int q = static_cast<int>(sets->size()) - 1; q >= 0; --q) {
    if (std::any_of(plans->begin(), plans->end(), [q](const TensorPlan& p) { return p.set == q; })) continue;
    sets->erase(sets->begin() + q);
    for (auto& p : *plans)
      if (p.set > q) --p.set;
  }
}

}  // namespace

void set_thresholds(int resolution, SetPlan* set) {
  for (int i = 0; i < set->classes; ++i) {
    const double mean = std::exp2(static_cast<double>(i) / resolution - kOctavesBelowOne);
    const long t1 = std::clamp(std::lround(0.4 * mean), 1L, 100L);
    set->t1[static_cast<size_t>(i)] = static_cast<uint8_t>(t1);
    set->t2[static_cast<size_t>(i)] = static_cast<uint8_t>(std::clamp(std::lround(1.3 * mean), t1 + 1, 120L));
  }
}

std::vector<SetPlan> make_sets(int resolution, int threads, std::vector<TensorPlan>* plans, TablesPlan* tables) {
  std::vector<SetPlan> sets(kSetKinds);
  for (const bool trellis : {false, true})
    for (const bool contexts : {false, true}) {
      SetPlan& set = sets[static_cast<size_t>(set_kind(contexts, trellis))];
      if (contexts) set.contexts = kMaxContexts;
      if (trellis) set.quantisers = kMaxQuantisers;
      set_thresholds(resolution, &set);
    }
  drop_unused_sets(plans, &sets);
  std::vector<Counts> counts = count_symbols(*plans, sets, threads);
  std::vector<OuterClasses> outer;
  for (size_t q = 0; q < sets.size(); ++q) {
    const ClassRange range = find_range(sets[q], counts[q]);
    outer.push_back(keep_classes(range, &sets[q], &counts[q]));
    for (auto& p : *plans)
      if (p.set == static_cast<int>(q)) p.base -= range.first;
  }
  const bool any = std::any_of(outer.begin(), outer.end(),
                               [](const OuterClasses& o) { return o.low > kNoneBelow || o.high < kNoneAbove; });
  if (any) add_outer_classes(*plans, sets, outer, threads, &counts);
  *tables = make_tables(share_tables(counts, &sets));
  return sets;
}

}  // namespace toolkit::wide
