// How many warps, blocks and bytes of shared memory a launch takes.
// SPDX-License-Identifier: Apache-2.0
#include "launch_geometry.h"

#include <algorithm>

namespace toolkit::cuda {
namespace {

constexpr int32_t kSlotsOfTable = 4096;

int32_t round_up(int64_t value, int32_t multiple) {
  return static_cast<int32_t>((value + multiple - 1) / multiple * multiple);
}

// Symbols a warp decodes in the time of one instruction slot, up to a factor: what the layouts cost beside each other,
// reckoned from their instructions and loads. To be replaced by measured figures.
double speed_of(Layout layout) {
  switch (layout) {
    case Layout::kDirect:
      return 8;
    case Layout::kPaired:
      return 7;
    case Layout::kBuckets:
      return 5;
    default:
      return 1.5;
  }
}

}  // namespace

int32_t entries_begin(Layout layout) {
  if (layout == Layout::kDirect) return 0;
  return layout == Layout::kPaired ? kSlotsOfTable : kSlotsOfTable / kBucketSlots;
}

int32_t table_stride(Layout layout, const TableNeeds& needs) {
  if (layout == Layout::kDirect) return 4 * kSlotsOfTable;
  // An odd number of words behind the bytes: the same entry of neighbouring tables then lies in different banks.
  return entries_begin(layout) + 4 * ((layout == Layout::kPaired ? needs.span : needs.entries) | 1);
}

int64_t shared_bytes_of(Layout layout, const TableNeeds& needs, int32_t warps) {
  const int64_t stride = layout == Layout::kGlobalBuckets ? 0 : table_stride(layout, needs);
  return round_up(needs.record_bytes, 16) + round_up(stride * needs.tables, 16) +
         static_cast<int64_t>(warps) * kWarpBytes;
}

Geometry geometry_of(const DeviceLimits& limits, const TableNeeds& needs, int64_t num_blocks, Layout layout) {
  Geometry g;
  g.layout = layout;
  const int64_t room = limits.shared_bytes - shared_bytes_of(layout, needs, 0);
  const int64_t fitting = std::min<int64_t>(
      {room / static_cast<int64_t>(kWarpBytes), kMostWarps, limits.block_threads / kWarpLanesOfBlock});
  if (fitting < 1 || num_blocks < 1) return g;
  // Every warp takes as many blocks as the others, or one less: a last turn of few warps would leave the device idle.
  const int64_t wanted = (num_blocks + limits.multiprocessors - 1) / limits.multiprocessors;
  const int64_t turns = (wanted + fitting - 1) / fitting;
  g.warps = static_cast<int32_t>((wanted + turns - 1) / turns);
  g.grid = static_cast<int32_t>(std::min<int64_t>(limits.multiprocessors, (num_blocks + g.warps - 1) / g.warps));
  g.warps = static_cast<int32_t>(std::max<int64_t>(g.warps, std::min<int64_t>(kCopyingWarps, fitting)));
  g.shared_bytes = static_cast<int32_t>(shared_bytes_of(layout, needs, g.warps));
  return g;
}

Geometry choose_geometry(const DeviceLimits& limits, const TableNeeds& needs, int64_t num_blocks) {
  Geometry best;
  double best_speed = 0;
  for (int layout = 0; layout < kLayouts; ++layout) {
    const Geometry g = geometry_of(limits, needs, num_blocks, static_cast<Layout>(layout));
    const double speed = g.warps * speed_of(g.layout);
    if (speed > best_speed) {
      best = g;
      best_speed = speed;
    }
  }
  return best;
}

}  // namespace toolkit::cuda
