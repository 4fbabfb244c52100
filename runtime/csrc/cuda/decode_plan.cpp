// From a checked segment to what a launch works on.
// SPDX-License-Identifier: Apache-2.0
#include "decode_plan.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <tuple>

#include "warp_lookup.h"
#include "wide_step.h"

namespace toolkit::cuda {
namespace {

using wide::Segment;
using wide::TableSet;
using wide::Tensor;

// The values of a class array, each once.
std::vector<int> values_of(const int8_t* classes, uint32_t count) {
  std::array<bool, 256> seen{};
  if (classes)
    for (uint32_t i = 0; i < count; ++i) seen[static_cast<size_t>(classes[i] + 128)] = true;
  else
    seen[128] = true;
  std::vector<int> values;
  for (int v = -128; v < 128; ++v)
    if (seen[static_cast<size_t>(v + 128)]) values.push_back(v);
  return values;
}

// The classes of a set that a tensor's symbols have.
std::vector<bool> used_classes(const TableSet& set, const Tensor& t) {
  std::array<bool, 256> rows{};
  const std::vector<int> outer = values_of(t.class_a, t.a), inner = values_of(t.class_b, t.b);
  for (const int a : outer)
    for (const int b : inner) rows[static_cast<size_t>(wide::row_class_of(t.base + a + b) + 128)] = true;
  std::vector<bool> used(static_cast<size_t>(set.classes));
  for (const int c : values_of(t.class_c, t.c))
    for (int row = -128; row < 128; ++row)
      if (rows[static_cast<size_t>(row + 128)]) used[static_cast<size_t>(wide::class_of(row, c, set.classes))] = true;
  return used;
}

// The symbols of a table that have a frequency, as entries with cumulative frequencies.
std::vector<uint32_t> entries_of(const uint32_t* slots) {
  std::vector<uint32_t> entries;
  for (uint32_t slot = 0; slot < wide::kSlots;) {
    const uint32_t frequency = slots[slot] >> 8 & 0xfff;
    entries.push_back(wide::pack_slot(static_cast<int8_t>(slots[slot]), frequency, slot));
    slot += frequency;
  }
  return entries;
}

// `lowest`: symbol whose entry is the first of a table with an entry for each symbol.
void lay_out_table(Layout layout, const std::vector<uint32_t>& entries, int lowest, uint8_t* to) {
  auto* const words = reinterpret_cast<uint32_t*>(to + entries_begin(layout));
  if (layout == Layout::kBuckets || layout == Layout::kGlobalBuckets) {
    size_t entry = 0;
    for (uint32_t slot = 0; slot < wide::kSlots; slot += kBucketSlots) {
      while (entry + 1 < entries.size() && entries[entry + 1] >> 20 <= slot) ++entry;
      to[slot / kBucketSlots] = static_cast<uint8_t>(entry);
    }
    std::copy(entries.begin(), entries.end(), words);
    return;
  }
  for (const uint32_t entry : entries) {
    const int symbol = static_cast<int8_t>(entry);
    const uint32_t frequency = entry >> 8 & 0xfff, cum = entry >> 20;
    if (layout == Layout::kPaired) {
      words[symbol - lowest] = paired_entry(frequency, cum);
      std::memset(to + cum, symbol, frequency);
    } else {
      for (uint32_t slot = cum; slot < cum + frequency; ++slot)
        words[slot] = direct_entry(symbol, frequency, slot, cum);
    }
  }
}

// Adds room for `bytes` at a multiple of 16 and returns where it begins.
size_t add_part(std::vector<uint8_t>* image, size_t bytes) {
  const size_t at = (image->size() + 15) / 16 * 16;
  image->resize(at + bytes);
  return at;
}

template <class T>
size_t add_values(std::vector<uint8_t>* image, const std::vector<T>& values) {
  const size_t at = add_part(image, values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(image->data() + at, values.data(), values.size() * sizeof(T));
  return at;
}

// The tables of a launch, numbered in the order of their first use, and the records of its set.
struct Tables {
  const TableSet& set;
  std::vector<bool> used;
  std::vector<int> numbers;  // of the segment's tables
  std::vector<std::vector<uint32_t>> entries;
  int lowest = 0, highest = 0;  // symbols
  uint32_t record_stride = 1, record_origin = 0;
  std::vector<uint8_t> records;

  explicit Tables(const TableSet& of) : set(of), used(static_cast<size_t>(of.classes)) { place_.fill(-1); }

  void add_classes(const Tensor& t) {
    const std::vector<bool> more = used_classes(set, t);
    for (size_t y = 0; y < used.size(); ++y) used[y] = used[y] || more[y];
  }

  // When all classes are known. Those that no tensor has keep table 0: they are never read.
  void lay_out_records(const Segment& s) {
    each_place([&](int y, int z, int q) { number_of(s, set.map[set.place_of(y, z, q)]); });
    if (set.contexts > 1) {
      // An odd number of words, so that records of neighbouring classes lie in different banks.
      record_stride = 4 * (static_cast<uint32_t>(highest - lowest + 4) / 4 | 1);
      record_origin = static_cast<uint32_t>(-lowest);
    }
    records.resize(static_cast<size_t>(set.classes * set.quantisers) * record_stride);
    for (int y = 0; y < set.classes; ++y)
      for (int q = 0; used[static_cast<size_t>(y)] && q < set.quantisers; ++q) {
        uint8_t* const record = records.data() + static_cast<size_t>(y * set.quantisers + q) * record_stride;
        if (set.contexts == 1) *record = number_of(s, set.map[set.place_of(y, 0, q)]);
        for (int v = lowest; set.contexts > 1 && v <= highest; ++v)
          record[v - lowest] = number_of(s, set.map[set.place_of(y, wide::context_of(v, set.t1[y], set.t2[y]), q)]);
      }
  }

 private:
  std::array<int, wide::kMaxTables> place_;

  template <class F>
  void each_place(F f) const {
    for (int y = 0; y < set.classes; ++y)
      for (int z = 0; used[static_cast<size_t>(y)] && z < set.contexts; ++z)
        for (int q = 0; q < set.quantisers; ++q) f(y, z, q);
  }
  uint8_t number_of(const Segment& s, int table) {
    int& at = place_[static_cast<size_t>(table)];
    if (at < 0) {
      at = static_cast<int>(numbers.size());
      numbers.push_back(table);
      entries.push_back(entries_of(s.slots.get() + static_cast<size_t>(table) * wide::kSlots));
      for (const uint32_t entry : entries.back()) {
        lowest = std::min<int>(lowest, static_cast<int8_t>(entry));
        highest = std::max<int>(highest, static_cast<int8_t>(entry));
      }
    }
    return static_cast<uint8_t>(at);
  }
};

}  // namespace

Divider divider_of(int64_t divisor) {
  Divider d;
  d.divisor = static_cast<uint32_t>(divisor);
  while ((int64_t{1} << d.shift) < divisor) ++d.shift;
  d.multiplier = static_cast<uint32_t>(((uint64_t{1} << (31 + d.shift)) + d.divisor - 1) / d.divisor);
  return d;
}

DecodePlan make_plan(const Segment& s, const uint16_t* blob, const std::vector<int64_t>& tensors,
                     const DeviceLimits& limits, int layout) {
  DecodePlan plan;
  plan.wide = s.wide;
  std::vector<TensorJob> jobs;
  std::vector<BlockJob> blocks;
  std::vector<int8_t> classes;
  std::vector<Patch> patches;
  const Tensor& sample = s.tensors[static_cast<size_t>(tensors.front())];
  const TableSet& set = s.sets[static_cast<size_t>(sample.set)];
  plan.launch.classes = set.classes;
  plan.launch.contexts = set.contexts > 1;
  plan.launch.trellis = set.quantisers > 1;
  plan.launch.columns = sample.class_c != nullptr;
  plan.launch.low_bits = sample.low_bits;
  Tables tables(set);
  for (const int64_t index : tensors) {
    const Tensor& t = s.tensors[static_cast<size_t>(index)];
    const auto place_classes = [&](const int8_t* from, uint32_t count) {
      if (!from) return kNoClasses;
      classes.resize((classes.size() + 3) / 4 * 4);  // classes of columns are read by fours
      const auto at = static_cast<uint32_t>(classes.size());
      classes.insert(classes.end(), from, from + count);
      return at;
    };
    TensorJob job{};
    job.size = static_cast<uint32_t>(t.size());
    job.rows = static_cast<uint32_t>(t.rows());
    job.rows_per_lane = t.k;
    job.b = t.b;
    job.c = t.c;
    job.num_lanes = static_cast<uint32_t>(t.num_lanes);
    job.lane_steps = static_cast<uint32_t>(t.lane_stride());
    job.first_lane = static_cast<uint32_t>(t.first_lane);
    job.class_a = place_classes(t.class_a, t.a);
    job.class_b = place_classes(t.class_b, t.b);
    job.class_c = place_classes(t.class_c, t.c);
    job.base = t.base;
    tables.add_classes(t);
    PlannedTensor planned{index,
                          job,
                          static_cast<uint32_t>(blocks.size()),
                          static_cast<uint32_t>(t.num_blocks),
                          static_cast<uint32_t>(patches.size()),
                          0};
    const auto number = static_cast<uint32_t>(jobs.size());
    for (int64_t b = 0; b < t.num_blocks; ++b) {
      const auto at = static_cast<size_t>(t.first_block + b);
      blocks.push_back({number, static_cast<uint32_t>(b * wide::kLanes), static_cast<uint32_t>(s.block_begin[at]),
                        static_cast<uint32_t>(s.block_begin[at + 1] - s.block_begin[at])});
    }
    const auto steps = static_cast<uint64_t>(s.num_steps);
    const uint64_t first = static_cast<uint64_t>(t.first_lane) * steps;
    const uint64_t last = first + static_cast<uint64_t>(t.num_lanes) * steps;
    auto e = std::lower_bound(s.exceptions.begin(), s.exceptions.end(), first,
                              [](const wide::Exception& exception, uint64_t at) { return exception.index < at; });
    for (; e != s.exceptions.end() && e->index < last; ++e) {
      const uint64_t at = e->index - first;
      patches.push_back(
          {static_cast<uint32_t>(at / steps * job.lane_steps + at % steps), static_cast<int32_t>(e->value)});
    }
    planned.num_patches = static_cast<uint32_t>(patches.size()) - planned.first_patch;
    plan.tensors.push_back(planned);
    jobs.push_back(job);
  }

  tables.lay_out_records(s);
  TableNeeds& needs = plan.needs;
  needs.tables = static_cast<int32_t>(tables.numbers.size());
  needs.span = tables.highest - tables.lowest + 1;
  needs.record_bytes = static_cast<int32_t>((tables.records.size() + 15) / 16 * 16);
  for (const auto& entries : tables.entries)
    needs.entries = std::max(needs.entries, static_cast<int32_t>(entries.size()));
  const auto num_blocks = static_cast<int64_t>(blocks.size());
  const Geometry all = layout < 0 ? choose_geometry(limits, needs, num_blocks)
                                  : geometry_of(limits, needs, num_blocks, static_cast<Layout>(layout));
  plan.layout = all.layout;
  plan.fits = all.grid > 0;
  const auto stride = static_cast<size_t>(table_stride(plan.layout, needs));
  const auto record_bytes = static_cast<size_t>(needs.record_bytes);
  const size_t table_bytes = (stride * tables.entries.size() + 15) / 16 * 16;

  plan.parts.blocks = add_values(&plan.image, blocks);
  plan.parts.tensors = add_values(&plan.image, jobs);
  plan.parts.classes = add_values(&plan.image, classes);
  plan.parts.patches = add_values(&plan.image, patches);
  plan.parts.tables = add_part(&plan.image, record_bytes + table_bytes);
  plan.parts.end = plan.image.size();
  uint8_t* const at = plan.image.data() + plan.parts.tables;
  std::copy(tables.records.begin(), tables.records.end(), at);
  for (size_t i = 0; i < tables.entries.size(); ++i)
    lay_out_table(plan.layout, tables.entries[i], tables.lowest, at + record_bytes + i * stride);

  plan.launch.words_at = static_cast<uint64_t>(s.words - blob);
  plan.launch.states_at = static_cast<uint64_t>(s.states - blob);
  plan.launch.record_bytes = static_cast<uint32_t>(record_bytes);
  plan.launch.record_stride = tables.record_stride;
  plan.launch.record_origin = tables.record_origin;
  plan.launch.table_bytes = static_cast<uint32_t>(table_bytes);
  plan.launch.table_stride = static_cast<uint32_t>(stride);
  plan.launch.entries_at =
      static_cast<uint32_t>(entries_begin(plan.layout) - (plan.layout == Layout::kPaired ? 4 * tables.lowest : 0));
  return plan;
}

std::vector<std::vector<int64_t>> launch_groups(const Segment& s) {
  std::map<std::tuple<int, bool, int>, std::vector<int64_t>> groups;
  for (size_t i = 0; i < s.tensors.size(); ++i) {
    const Tensor& t = s.tensors[i];
    groups[{t.set, t.class_c != nullptr, t.low_bits}].push_back(static_cast<int64_t>(i));
  }
  std::vector<std::vector<int64_t>> lists;
  for (auto& [way, tensors] : groups) lists.push_back(std::move(tensors));
  return lists;
}

DecodeLaunch launch_at(const DecodePlan& plan, const uint8_t* image, const uint16_t* blob, int64_t blob_words) {
  DecodeLaunch launch = plan.launch;
  launch.blob = blob;
  launch.blob_units = static_cast<uint64_t>(blob_words) / 4;
  launch.blocks = reinterpret_cast<const BlockJob*>(image + plan.parts.blocks);
  launch.tensors = reinterpret_cast<const TensorJob*>(image + plan.parts.tensors);
  launch.classes_of_axes = reinterpret_cast<const int8_t*>(image + plan.parts.classes);
  launch.patches = reinterpret_cast<const Patch*>(image + plan.parts.patches);
  launch.tables = image + plan.parts.tables;
  return launch;
}

namespace {

// Completes an epilogue: whether 16-byte stores are possible, and how scales lie beside a vector of values.
void settle_epilogue(bool wide, const PartRequest& request, uint32_t lane_steps, Epilogue* e) {
  const bool four = e->kind == OutKind::kFloat32 || e->kind == OutKind::kLookup32;
  const int64_t size = four ? 4 : (e->kind == OutKind::kSymbols && !wide ? 1 : 2);
  const int64_t width = 16 / size;
  // Scales belong to flat indices, which must then be multiples of the width where a vector begins.
  e->vector =
      reinterpret_cast<uintptr_t>(request.out) % 16 == 0 && request.out_stride % width == 0 && lane_steps % width == 0;
  const auto divides = [](int64_t divisor, const Divider& d) { return d.divisor % divisor == 0; };
  const bool blocks = e->map == ScaleMap::kBlocks, rows_of_blocks = blocks && e->inner.divisor == 1;
  const auto same_for = [&](int64_t symbols) {
    return e->map == ScaleMap::kOne || (e->map == ScaleMap::kAxis && divides(symbols, e->inner)) ||
           (rows_of_blocks && divides(symbols, e->block) && divides(symbols, e->length));
  };
  e->run = ScaleRun::kEach;
  if (same_for(lane_steps))
    e->run = ScaleRun::kLane;
  else if (same_for(width))
    e->run = ScaleRun::kSame;
  else if (blocks ? divides(width, e->inner)
                  : e->map == ScaleMap::kAxis && e->inner.divisor == 1 && divides(width, e->count))
    e->run = ScaleRun::kConsecutive;
  const bool read_at_once = e->zero_type == NumberType::kNone && reinterpret_cast<uintptr_t>(e->scales) % 16 == 0;
  e->whole_tiles = e->zero_type != NumberType::kInt32 && e->run != ScaleRun::kEach &&
                   (e->run != ScaleRun::kConsecutive || read_at_once);
}

}  // namespace

bool add_part(const DecodePlan& plan, const PartRequest& request, DecodeLaunch* launch) {
  if (launch->num_parts == kMostParts) return false;
  const PlannedTensor& planned = plan.tensors[request.place];
  LaunchPart& part = launch->parts[launch->num_parts++];
  part.epilogue = request.epilogue;
  settle_epilogue(plan.wide, request, planned.job.lane_steps, &part.epilogue);
  part.out = request.out;
  part.status = request.status;
  part.out_stride = request.out_stride;
  part.tensor = static_cast<uint32_t>(request.place);
  part.blocks_at = planned.first_block - launch->num_blocks;
  launch->num_blocks += planned.num_blocks;
  part.end = launch->num_blocks;
  part.patches_at = planned.first_patch;
  part.num_patches = planned.num_patches;
  part.most_values = request.most_values;
  return true;
}

Geometry geometry_of(const DecodePlan& plan, const DeviceLimits& limits, int64_t num_blocks) {
  return geometry_of(limits, plan.needs, num_blocks, plan.layout);
}

tk_plan_info describe(const DecodePlan& plan, const DeviceLimits& limits, int64_t place) {
  int64_t num_blocks = 0;
  for (size_t i = 0; i < plan.tensors.size(); ++i)
    if (place < 0 || place == static_cast<int64_t>(i)) num_blocks += plan.tensors[i].num_blocks;
  const Geometry g = geometry_of(plan, limits, num_blocks);
  return {static_cast<int32_t>(plan.layout),
          g.grid,
          g.warps,
          g.shared_bytes,
          plan.needs.tables,
          plan.needs.entries,
          plan.needs.record_bytes,
          plan.needs.span,
          static_cast<int64_t>(plan.parts.end),
          num_blocks};
}

}  // namespace toolkit::cuda
