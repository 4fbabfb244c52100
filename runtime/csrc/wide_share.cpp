// Which classes and contexts share a table: the cheapest pair is merged, again and again.
// SPDX-License-Identifier: Apache-2.0
#include "wide_share.h"

#include <algorithm>
#include <limits>

#include "wide_log2.h"

namespace toolkit::wide {
namespace {

// A decoding table takes 16 KiB: so many take half of a second-level cache of 1 MiB.
constexpr size_t kNearTables = 32;
// Of the code words, what merging further than pays may cost in all until there are as few.
constexpr double kSpeedShare = 0.002;

// Symbols with one distribution, and who they are.
struct Cluster {
  std::vector<uint32_t> counts;                    // 256
  uint64_t total = 0;                              // of these
  int first = 255, last = 0;                       // symbols that occur
  double bits = 0;                                 // with its table
  std::vector<std::pair<size_t, size_t>> members;  // set, place in its map
  size_t partner = 0;                              // the later cluster that costs least to merge with
  double cost = std::numeric_limits<double>::infinity();
};

double table_bits(int first, int last) { return 10 + 4.0 * (last - first + 1); }

// Bits of both clusters under one table. No frequency is below 1 in kSlots: where many symbols are rarer, all others
// become dearer, which is what keeps wide and narrow distributions apart.
double joint_bits(const Cluster& a, const Cluster& b) {
  const int first = std::min(a.first, b.first), last = std::max(a.last, b.last);
  const auto count = [&](int i) { return a.counts[static_cast<size_t>(i)] + b.counts[static_cast<size_t>(i)]; };
  const uint64_t total = a.total + b.total;
  uint64_t rare = 0;  // symbols' occurrences
  int rare_symbols = 0;
  double sum = 0;
  for (int i = first; i <= last; ++i) {
    const uint32_t n = count(i);
    if (uint64_t{n} * kSlots >= total) {
      sum += n * log2_of_count(n);
    } else {
      rare += n;
      rare_symbols += n != 0;
    }
  }
  const auto all = static_cast<double>(total), seldom = static_cast<double>(rare);
  const double excess = rare_symbols / static_cast<double>(kSlots) - seldom / all;
  return (all - seldom) * log2_of(all) - sum + seldom * kProbabilityBits + all * log2_of(1 + excess) +
         table_bits(first, last);
}

class Merging {
 public:
  explicit Merging(std::vector<Cluster> clusters) : clusters_(std::move(clusters)) {
    for (const auto& c : clusters_) allowance_ += kSpeedShare * c.bits;
    for (size_t i = 0; i < clusters_.size(); ++i) find_partner(i);
  }

  std::vector<Cluster> run() {
    while (clusters_.size() > 1) {
      const auto cheapest =
          static_cast<size_t>(std::min_element(clusters_.begin(), clusters_.end(),
                                               [](const Cluster& a, const Cluster& b) { return a.cost < b.cost; }) -
                              clusters_.begin());
      const double cost = clusters_[cheapest].cost;
      const bool for_speed = clusters_.size() > kNearTables && cost <= allowance_;
      if (cost > 0 && !for_speed && clusters_.size() <= kMaxTables) break;
      if (cost > 0) allowance_ -= cost;
      merge(cheapest, clusters_[cheapest].partner);
    }
    return std::move(clusters_);
  }

 private:
  void find_partner(size_t i) {
    clusters_[i].cost = std::numeric_limits<double>::infinity();
    for (size_t j = i + 1; j < clusters_.size(); ++j) offer(i, j);
  }

  void offer(size_t i, size_t j) {
    const double cost = joint_bits(clusters_[i], clusters_[j]) - clusters_[i].bits - clusters_[j].bits;
    if (cost >= clusters_[i].cost) return;
    clusters_[i].cost = cost;
    clusters_[i].partner = j;
  }

  // Puts `b` into `a`, which stands before it.
  void merge(size_t a, size_t b) {
    Cluster& into = clusters_[a];
    const Cluster gone = std::move(clusters_[b]);
    into.bits = joint_bits(into, gone);
    for (size_t i = 0; i < 256; ++i) into.counts[i] += gone.counts[i];
    into.total += gone.total;
    into.first = std::min(into.first, gone.first);
    into.last = std::max(into.last, gone.last);
    into.members.insert(into.members.end(), gone.members.begin(), gone.members.end());
    clusters_.erase(clusters_.begin() + static_cast<std::ptrdiff_t>(b));
    for (size_t i = 0; i < clusters_.size(); ++i) {
      Cluster& c = clusters_[i];
      const bool lost = i == a || c.partner == a || c.partner == b;
      if (c.partner > b) --c.partner;
      if (lost)
        find_partner(i);
      else if (i < a)
        offer(i, a);
    }
  }

  std::vector<Cluster> clusters_;
  double allowance_ = 0;
};

std::vector<Cluster> one_for_each(const std::vector<Counts>& counts) {
  std::vector<Cluster> clusters;
  for (size_t q = 0; q < counts.size(); ++q)
    for (size_t place = 0; place < counts[q].size() / 256; ++place) {
      Cluster c;
      const auto from = counts[q].begin() + static_cast<std::ptrdiff_t>(place * 256);
      c.counts.assign(from, from + 256);
      for (int i = 0; i < 256; ++i)
        if (c.counts[static_cast<size_t>(i)]) {
          c.first = std::min(c.first, i);
          c.last = i;
          c.total += c.counts[static_cast<size_t>(i)];
        }
      if (c.first > c.last) continue;
      c.members.emplace_back(q, place);
      const Cluster nothing{std::vector<uint32_t>(256), 0, 255, 0, 0, {}, 0, 0};
      c.bits = joint_bits(c, nothing);
      clusters.push_back(std::move(c));
    }
  return clusters;
}

}  // namespace

Counts share_tables(const std::vector<Counts>& counts, std::vector<SetPlan>* sets) {
  // Where nothing was counted, any table will do.
  for (auto& set : *sets) set.map.assign(set.entries() / 256, 0);
  const std::vector<Cluster> clusters = Merging(one_for_each(counts)).run();
  Counts shared;
  for (size_t t = 0; t < clusters.size(); ++t) {
    shared.insert(shared.end(), clusters[t].counts.begin(), clusters[t].counts.end());
    for (const auto& [set, place] : clusters[t].members) (*sets)[set].map[place] = static_cast<uint8_t>(t);
  }
  return shared;
}

}  // namespace toolkit::wide
