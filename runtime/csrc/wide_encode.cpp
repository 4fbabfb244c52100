// The wide encoder: plans the tensors, makes their tables, codes their blocks and the side information.
// SPDX-License-Identifier: Apache-2.0
#include "wide_encode.h"

#include <algorithm>

#include "threads.h"
#include "wide_encode_block.h"
#include "wide_lay_out.h"
#include "wide_plan.h"
#include "wide_sets.h"
#include "wide_split.h"
#include "wide_trellis.h"

namespace toolkit::wide {
namespace {

constexpr double kLaneBits = 32;      // a lane's state
constexpr double kLaneShare = 0.005;  // of its code words, that a lane's state may cost
constexpr int64_t kMaxSteps = 8192;
constexpr int64_t kWantedLanes = 3072;  // enough for decoders that work on all lanes of a segment at once
constexpr int64_t kMinSteps = 256;
constexpr size_t kNestedFrom = 600;  // bytes of side information below which coding it cannot pay

// How many rows a lane takes: lanes cost their states, and give speed.
void choose_lanes(int64_t wanted_steps, TensorPlan* p) {
  int64_t lanes = (p->size() + wanted_steps - 1) / wanted_steps;
  if (lanes > kLanes / 2) lanes = (lanes + kLanes - 1) / kLanes * kLanes;
  p->k = std::max<int64_t>(1, (p->rows() + lanes - 1) / lanes);
}

int64_t steps_for(const std::vector<TensorPlan>& plans) {
  double bits = 0, symbols = 0;
  for (const auto& p : plans) {
    const auto size = static_cast<double>(p.size());
    bits += p.bits + p.low_bits * size;
    symbols += size;
  }
  const double enough = kLaneBits / kLaneShare / std::max(bits / symbols, 0.05);
  const int64_t steps =
      std::max(static_cast<int64_t>(enough), std::min(kMaxSteps, static_cast<int64_t>(symbols) / kWantedLanes));
  return std::clamp(steps, kMinSteps, 4 * kMaxSteps);
}

std::vector<Divisor> divisors_of(const Counts& frequency) {
  std::vector<Divisor> divisors(frequency.size());
  for (size_t table = 0; table < divisors.size(); table += 256) {
    uint32_t below = 0;
    for (size_t i = table; i < table + 256; ++i) {
      const uint32_t f = frequency[i];
      if (f) divisors[i] = Divisor(f, below);
      below += f;
    }
  }
  return divisors;
}

void encode_blocks(int threads, CodedSegment* segment) {
  const std::vector<Divisor> divisors = divisors_of(segment->tables.frequency);
  const std::vector<TableMap> maps = table_maps(segment->plans, segment->sets);
  std::vector<BlockSource> sources;
  std::vector<std::pair<size_t, int64_t>> jobs;  // tensor, block in it
  for (size_t t = 0; t < segment->plans.size(); ++t) {
    const TensorPlan& p = segment->plans[t];
    sources.push_back({&p, &maps[t], divisors.data(), p.low_bits ? (*segment->split)[t].low.data() : nullptr});
    for (int64_t b = 0; b < p.blocks(); ++b) jobs.emplace_back(t, b);
  }
  segment->blocks.resize(jobs.size());
  const auto count = static_cast<int64_t>(jobs.size());
  std::vector<BlockScratch> scratch(static_cast<size_t>(worker_count(count, threads)));
  for_each_on_demand(count, threads, [&](size_t worker, size_t i) {
    encode_block(sources[jobs[i].first], jobs[i].second, &scratch[worker], &segment->blocks[i]);
  });
}

// Everything but the nested side information. `steps`: wanted per lane, 0 for the default.
CodedSegment code(const ModelOptions& model, int64_t steps, int threads, std::vector<TensorPlan> plans,
                  const std::vector<SplitSymbols>* split) {
  CodedSegment segment;
  segment.plans = std::move(plans);
  segment.split = split;
  plan_tensors(model, threads, &segment.plans);
  if (!steps) steps = steps_for(segment.plans);
  for (auto& p : segment.plans) choose_lanes(steps, &p);
  segment.sets = make_sets(model.resolution, threads, &segment.plans, &segment.tables);
  encode_blocks(threads, &segment);
  return segment;
}

// The side information as a nested body of two tensors (FORMAT.md 2.4).
std::vector<uint16_t> code_side(SideBytes side) {
  std::vector<TensorPlan> plans(2);
  std::vector<uint8_t>* const streams[2] = {&side.classes, &side.tables};
  for (size_t i = 0; i < 2; ++i) {
    const int64_t size = std::max<int64_t>(1, static_cast<int64_t>(streams[i]->size()));
    const int64_t lanes = std::max<int64_t>(1, size / 1024);
    plans[i].c = (size + lanes - 1) / lanes;
    plans[i].b = (size + plans[i].c - 1) / plans[i].c;
    streams[i]->resize(static_cast<size_t>(plans[i].size()));
    plans[i].symbols = reinterpret_cast<const int8_t*>(streams[i]->data());
  }
  ModelOptions model;
  model.classes = false;
  model.resolution = 1;
  const CodedSegment segment = code(model, 1024, 1, std::move(plans), nullptr);
  std::vector<uint16_t> words(static_cast<size_t>(body_words(segment)));
  write_body(segment, 1, words.data());
  return words;
}

}  // namespace

void encode_segment(const tk_tensor* tensors, int64_t count, const tk_wide_options& options,
                    const std::function<uint16_t*(int64_t)>& allocate) {
  std::vector<TensorPlan> plans(static_cast<size_t>(count));
  std::vector<SplitSymbols> split(options.wide ? static_cast<size_t>(count) : 0);
  std::vector<std::vector<uint8_t>> quantisers(static_cast<size_t>(count));
  int64_t symbols = 0;
  for (size_t i = 0; i < plans.size(); ++i) {
    TensorPlan& p = plans[i];
    p.a = tensors[i].a;
    p.b = tensors[i].b;
    p.c = tensors[i].c;
    symbols += p.size();
    p.symbols = static_cast<const int8_t*>(tensors[i].symbols);
    if (options.wide) split[i] = split_symbols(static_cast<const int16_t*>(tensors[i].symbols), p.size());
    if (tensors[i].trellis) {
      if (options.wide)
        quantisers[i] = find_quantisers(static_cast<const int16_t*>(tensors[i].symbols), p.rows(), p.c);
      else
        quantisers[i] = find_quantisers(p.symbols, p.rows(), p.c);
      p.quantisers = quantisers[i].data();
      if (options.wide) reconstruct_exceptions(quantisers[i], &split[i]);
    }
    if (options.wide) {
      p.low_bits = split[i].low_bits;
      p.symbols = split[i].high.data();
    }
  }
  // Fine classes pay where there are symbols enough to fill their tables: small models try coarser ones as well.
  std::vector<int> resolutions{4};
  if (symbols < 4'000'000) resolutions.push_back(2);
  if (symbols < 500'000) resolutions.push_back(1);
  CodedSegment best;
  int64_t best_words = 0;
  for (const int resolution : resolutions) {
    const ModelOptions model{options.contexts, options.classes != 0, resolution};
    CodedSegment segment = code(model, options.steps, options.threads, plans, options.wide ? &split : nullptr);
    const SideBytes side = side_bytes(segment);
    const size_t bytes = side.classes.size() + side.tables.size();
    if (bytes >= kNestedFrom) {
      segment.nested = code_side(side);
      if (2 * segment.nested.size() >= bytes) segment.nested.clear();
    }
    const int64_t words = body_words(segment);
    if (!best_words || words < best_words) {
      best = std::move(segment);
      best_words = words;
    }
  }
  write_body(best, options.threads, allocate(best_words));
}

}  // namespace toolkit::wide
