// Coding of blocks, in plain C++.
// SPDX-License-Identifier: Apache-2.0
#include "wide_encode_block.h"

#include <algorithm>

namespace toolkit::wide {
namespace {

// Steps whose tables are looked up at once: lanes are read in pieces of so many symbols and coded step by step, so this
// turns lanes into columns within the nearest cache.
constexpr int64_t kTileSteps = 64;

// Lanes lie so far apart that the processor does not fetch the next one's symbols of its own accord.
constexpr int kLanesAhead = 4;
constexpr int64_t kCacheLine = 64;

inline void prefetch(const void* at) {
#if defined(__GNUC__)
  __builtin_prefetch(at);
#else
  static_cast<void>(at);
#endif
}

// One block, coded from its last step to its first one.
class BlockEncoder {
 public:
  BlockEncoder(const BlockSource& source, int64_t block, uint32_t* indices, uint16_t* end)
      : source_(source),
        plan_(*source.plan),
        first_lane_(block * kLanes),
        lanes_(static_cast<int>(std::min<int64_t>(kLanes, plan_.lanes() - first_lane_))),
        indices_(indices),
        to_(end) {
    std::fill_n(x_, kLanes, kStateLow);
  }

  // Returns the first of the code words, which end where `end` was.
  uint16_t* encode() {
    // Only the last lane may be shorter than the others: it joins in where its steps begin.
    const int64_t steps = plan_.rows_of_lane(first_lane_) * plan_.c;
    const int64_t last_steps = plan_.rows_of_lane(first_lane_ + lanes_ - 1) * plan_.c;
    encode_steps(last_steps, steps, lanes_ - 1);
    encode_steps(0, last_steps, lanes_);
    return to_;
  }

  const uint32_t* states() const { return x_; }

 private:
  // Codes the steps first .. last - 1 of the first `active` lanes.
  void encode_steps(int64_t first, int64_t last, int active) {
    while (last > first) {
      const int64_t begin = std::max(first, last - kTileSteps);
      find_indices(begin, last, active);
      const auto count = static_cast<int>(last - begin);
      if (source_.low)
        code<true>(begin, count, active);
      else if (active == kLanes)
        code<false>(begin, count, kLanes);
      else
        code<false>(begin, count, active);
      last = begin;
    }
  }

  // Fills indices_[step][lane].
  void find_indices(int64_t first, int64_t last, int active) {
    const int64_t stride = plan_.k * plan_.c;
    const int8_t* const symbols = plan_.symbols + first_lane_ * stride;
    for (int lane = 0; lane < active; ++lane) {
      const int64_t first_row = (first_lane_ + lane) * plan_.k;
      uint32_t* to = indices_ + lane;
      int64_t row = first_row + first / plan_.c, column = first % plan_.c;
      if (lane + kLanesAhead < active)
        for (int64_t i = first; i < last; i += kCacheLine) prefetch(symbols + (lane + kLanesAhead) * stride + i);
      for (int64_t step = first; step < last; ++row, column = 0) {
        const int64_t count = std::min(plan_.c - column, last - step);
        source_.map->visit(row, plan_.row_class(row), column, count,
                           [to](int64_t i, uint32_t index) { to[i * kLanes] = index; });
        to += count * kLanes;
        step += count;
      }
    }
  }

  template <bool Low>
  void code(int64_t first, int steps, int active) {
    const Divisor* const divisors = source_.divisors;
    const int64_t stride = plan_.k * plan_.c;
    uint16_t* to = to_;
    for (int step = steps - 1; step >= 0; --step) {
      if (Low) {
        const uint8_t* const low = source_.low + first_lane_ * stride + first + step;
        for (int i = active - 1; i >= 0; --i) {
          to = give_word(uint64_t{x_[i]} << plan_.low_bits >> 32, &x_[i], to);
          x_[i] = x_[i] << plan_.low_bits | low[i * stride];
        }
      }
      const uint32_t* const index = indices_ + step * kLanes;
      for (int i = active - 1; i >= 0; --i) {
        const Divisor& divisor = divisors[index[i]];
        to = give_word(x_[i] >= divisor.limit, &x_[i], to);
        x_[i] = push_symbol(x_[i], divisor);
      }
    }
    to_ = to;
  }

  const BlockSource& source_;
  const TensorPlan& plan_;
  const int64_t first_lane_;
  const int lanes_;
  uint32_t* const indices_;
  uint16_t* to_;
  uint32_t x_[kLanes];
};

}  // namespace

void encode_block(const BlockSource& source, int64_t block, BlockScratch* scratch, Block* out) {
  const TensorPlan& p = *source.plan;
  const int64_t most = std::min(p.k, p.rows()) * p.c * kLanes * (source.low ? 2 : 1);
  // One word more than can be due, since give_word writes before it decides.
  scratch->words.resize(std::max(scratch->words.size(), static_cast<size_t>(most + 1)));
  scratch->indices.resize(kTileSteps * kLanes);
  uint16_t* const end = scratch->words.data() + scratch->words.size();
  BlockEncoder encoder(source, block, scratch->indices.data(), end);
  out->words.assign(encoder.encode(), end);
  std::copy_n(encoder.states(), kLanes, out->states);
}

}  // namespace toolkit::wide
