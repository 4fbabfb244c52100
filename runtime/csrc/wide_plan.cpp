// View, classes and contexts of every tensor, chosen by estimated size.
// SPDX-License-Identifier: Apache-2.0
#include "wide_plan.h"

#include <algorithm>
#include <cmath>

#include "threads.h"
#include "wide_log2.h"
#include "wide_margins.h"
#include "wide_sample_cost.h"

namespace toolkit::wide {
namespace {

constexpr double kPrior = 2.0;  // symbols of average magnitude that every margin is mixed with

// Rounds resolution * log2(x) to an integer by comparing x with the powers of two at which the integer changes.
class OctaveSteps {
 public:
  explicit OctaveSteps(int resolution) {
    for (int i = 0; i < resolution; ++i) bounds_.push_back(std::exp2((i + 0.5) / resolution));
  }

  int round(double x) const {
    int octave = 0;
    const double mantissa = 2 * std::frexp(x, &octave);  // 1 .. 2
    int step = (octave - 1) * static_cast<int>(bounds_.size());
    for (const double bound : bounds_) step += mantissa >= bound;
    return step;
  }

 private:
  std::vector<double> bounds_;
};

// Class offsets of one axis: resolution * log2 of its margins against the mean.
std::vector<int8_t> offsets(const std::vector<double>& sums, double symbols_each, double mean,
                            const OctaveSteps& steps) {
  std::vector<int8_t> out(sums.size());
  const double prior = kPrior * mean;
  for (size_t i = 0; i < sums.size(); ++i) {
    const double ratio = (sums[i] + prior) / (symbols_each * mean + prior);
    out[i] = static_cast<int8_t>(std::clamp(steps.round(ratio), -128, 127));
  }
  return out;
}

// The plans that a tensor may get; the first has no classes.
std::vector<TensorPlan> candidates_of(const ModelOptions& options, const TensorPlan& natural, const Margins& m) {
  const auto size = static_cast<double>(natural.size());
  const double mean = std::max(m.total, 0.5) / size;
  const OctaveSteps steps(options.resolution);
  TensorPlan plain = natural;
  plain.base = static_cast<int>(std::lround(options.resolution * (log2_of(mean) + kOctavesBelowOne)));
  std::vector<TensorPlan> candidates{plain};
  if (!options.classes || m.total == 0) return candidates;

  std::vector<double> outer(static_cast<size_t>(natural.a)), inner(static_cast<size_t>(natural.b));
  for (size_t i = 0; i < outer.size(); ++i)
    for (size_t j = 0; j < inner.size(); ++j) {
      const double sum = m.row[i * inner.size() + j];
      outer[i] += sum;
      inner[j] += sum;
    }
  TensorPlan separable = plain;
  if (natural.a > 1) separable.class_a = offsets(outer, size / static_cast<double>(natural.a), mean, steps);
  if (natural.b > 1) separable.class_b = offsets(inner, size / static_cast<double>(natural.b), mean, steps);
  if (natural.c > 1) separable.class_c = offsets(m.col, static_cast<double>(natural.rows()), mean, steps);
  candidates.push_back(separable);
  TensorPlan rows_only = separable;
  rows_only.class_c.clear();
  candidates.push_back(std::move(rows_only));
  if (natural.c > 1) {
    TensorPlan columns = plain;
    columns.class_c = separable.class_c;
    candidates.push_back(std::move(columns));
  }
  if (natural.a > 1 && natural.b > 1) {
    TensorPlan merged = plain;  // each row its own class
    merged.a = 1;
    merged.b = natural.rows();
    merged.class_b = offsets(m.row, static_cast<double>(natural.c), mean, steps);
    candidates.push_back(merged);
    candidates.back().class_c = separable.class_c;
    candidates.push_back(std::move(merged));
    TensorPlan outer_only = plain;
    outer_only.class_a = separable.class_a;
    candidates.push_back(std::move(outer_only));
  }
  return candidates;
}

// The cheapest candidate becomes *plan.
void choose(int contexts, std::vector<TensorPlan>* candidates, const SampleBits* bits, TensorPlan* plan) {
  const auto cheapest = [&](double SampleBits::* kind) {
    return std::min_element(bits, bits + candidates->size(),
                            [=](const SampleBits& x, const SampleBits& y) { return x.*kind < y.*kind; });
  };
  const SampleBits* const plain = cheapest(&SampleBits::plain);
  const SampleBits* const five = cheapest(&SampleBits::with_contexts);
  // Contexts cost decoding time: they must give something.
  const bool use_five = contexts == 2 || (contexts == 1 && five->with_contexts < 0.998 * plain->plain);
  *plan = std::move((*candidates)[static_cast<size_t>((use_five ? five : plain) - bits)]);
  plan->set = set_kind(use_five, plan->quantisers != nullptr);
  plan->bits = use_five ? five->with_contexts : plain->plain;
}

}  // namespace

void plan_tensors(const ModelOptions& options, int threads, std::vector<TensorPlan>* plans) {
  const std::vector<Margins> margins = margins_of(*plans, threads);
  std::vector<std::vector<TensorPlan>> candidates(plans->size());
  for_each_on_demand(static_cast<int64_t>(plans->size()), threads,
                     [&](size_t, size_t i) { candidates[i] = candidates_of(options, (*plans)[i], margins[i]); });
  // All candidates of all tensors are equal pieces of work.
  std::vector<const TensorPlan*> all;
  for (const auto& of_tensor : candidates)
    for (const auto& candidate : of_tensor) all.push_back(&candidate);
  std::vector<SampleBits> bits(all.size());
  SetPlan five;
  five.contexts = kMaxContexts;
  set_thresholds(options.resolution, &five);
  const auto tried = static_cast<int64_t>(all.size());
  std::vector<SampleCost> costs(static_cast<size_t>(worker_count(tried, threads)), SampleCost(five));
  for_each_on_demand(tried, threads, [&](size_t worker, size_t i) { bits[i] = costs[worker].bits(*all[i]); });
  size_t first = 0;
  for (size_t i = 0; i < plans->size(); ++i) {
    choose(options.contexts, &candidates[i], bits.data() + first, &(*plans)[i]);
    first += candidates[i].size();
  }
}

}  // namespace toolkit::wide
