// When the weights of a session are decoded one ahead of their use: host code without CUDA.
// SPDX-License-Identifier: Apache-2.0
#include "prefetch_plan.h"

#include <algorithm>
#include <map>

#include "cuda_api.h"
#include "exception_guard.h"

namespace toolkit::cuda {

bool PrefetchOrder::add(int64_t place, const PrefetchPlace& what) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (place < 0 || place >= kMostPlaces) return false;
  const auto at = static_cast<size_t>(place);
  if (at < places_.size() && places_[at].present) return false;
  if (at >= places_.size()) places_.resize(at + 1);
  places_[at] = what;
  places_[at].present = true;
  order_ = learning_ || given_up_ ? std::vector<int64_t>() : present();
  return true;
}

std::vector<int64_t> PrefetchOrder::present() const {
  std::vector<int64_t> found;
  for (size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].present) found.push_back(static_cast<int64_t>(i));
  }
  return found;
}

void PrefetchOrder::remove(int64_t place) {
  const std::lock_guard<std::mutex> lock(mutex_);
  places_[static_cast<size_t>(place)] = {};
  order_.clear();
  given_up_ = true;
}

void PrefetchOrder::learn(const std::vector<int64_t>& run) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (given_up_ || !learning_ || !order_.empty()) return;
  std::vector<int64_t> sorted = run;
  std::sort(sorted.begin(), sorted.end());
  if (sorted == present()) order_ = run;
}

int64_t PrefetchOrder::first() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return first_;
}

void PrefetchOrder::miss(int64_t first) {
  const std::lock_guard<std::mutex> lock(mutex_);
  first_ = first;
  order_.clear();
  given_up_ = learning_;
  learning_ = true;
}

std::vector<int64_t> PrefetchOrder::places() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return order_.size() > 1 ? order_ : std::vector<int64_t>();
}

PrefetchPlace PrefetchOrder::place(int64_t number) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto at = static_cast<size_t>(number);
  return at < places_.size() ? places_[at] : PrefetchPlace{};
}

int64_t PrefetchOrder::buffer_bytes(int32_t buffer) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t bytes = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    if (static_cast<int32_t>(i % 2) == buffer) bytes = std::max(bytes, places_[static_cast<size_t>(order_[i])].bytes);
  }
  if (order_.empty()) {
    for (const PrefetchPlace& place : places_) bytes = std::max(bytes, place.bytes);
  }
  return bytes;
}

void PrefetchLane::join(std::vector<PrefetchStep>* steps) {
  if (ahead_ >= 0) steps->push_back({Action::kWait, Stream::kMain, kDecoded + static_cast<int32_t>(ahead_ % 2)});
  ahead_ = -1;
}

void PrefetchLane::decode(size_t position, Stream stream, std::vector<PrefetchStep>* steps) {
  steps->push_back({Action::kDecode, stream, static_cast<int32_t>(position % 2), known_[position]});
}

std::vector<PrefetchStep> PrefetchLane::abandon() {
  std::vector<PrefetchStep> steps;
  join(&steps);
  next_ = -1;
  run_.clear();
  return steps;
}

std::vector<PrefetchStep> PrefetchLane::begin(int64_t place) {
  const std::vector<int64_t> order = order_->places();
  if (order.empty() || (next_ >= 0 && order != known_)) {
    std::vector<PrefetchStep> steps;
    if (next_ >= 0 || ahead_ >= 0) steps = abandon();
    if (place == order_->first()) {
      order_->learn(run_);
      run_.clear();
      if (!order_->places().empty()) {
        const std::vector<PrefetchStep> more = begin(place);
        steps.insert(steps.end(), more.begin(), more.end());
        return steps;
      }
    }
    if (place == order_->first() || !run_.empty()) run_.push_back(place);
    return steps;
  }
  std::vector<PrefetchStep> steps;
  known_ = order;
  if (place == known_[0]) {
    run_.clear();
    // The run before may have failed on its way: what it began is waited for.
    join(&steps);
    next_ = 0;
    used_[0] = used_[1] = false;
    steps.push_back({Action::kRecord, Stream::kMain, kBegin});
    steps.push_back({Action::kWait, Stream::kSide, kBegin});
  }
  if (next_ < 0 && !run_.empty()) return steps;  // in the middle of a run that began before its order was known
  if (next_ < 0 || place != known_[static_cast<size_t>(next_)]) {
    std::vector<int64_t> run(known_.begin(), known_.begin() + std::max<int64_t>(next_, 0));
    run.push_back(place);
    order_->miss(run.front());
    steps = abandon();
    run_ = std::move(run);
    return steps;
  }
  const auto position = static_cast<size_t>(next_);
  if (ahead_ == next_)
    join(&steps);
  else
    decode(position, Stream::kMain, &steps);
  const size_t following = position + 1;
  if (following < known_.size() && order_->place(known_[following]).ahead) {
    const auto buffer = static_cast<int32_t>(following % 2);
    if (used_[buffer]) steps.push_back({Action::kWait, Stream::kSide, kUsed + buffer});
    used_[buffer] = false;
    decode(following, Stream::kSide, &steps);
    steps.push_back({Action::kRecord, Stream::kSide, kDecoded + buffer});
    ahead_ = static_cast<int64_t>(following);
  }
  steps.push_back({Action::kUse, Stream::kMain, static_cast<int32_t>(position % 2), place});
  return steps;
}

std::vector<PrefetchStep> PrefetchLane::end() {
  std::vector<PrefetchStep> steps;
  const auto buffer = static_cast<int32_t>(next_ % 2);
  const auto again = static_cast<size_t>(next_ + 2);  // who decodes into this buffer next
  if (again < known_.size() && order_->place(known_[again]).ahead) {
    steps.push_back({Action::kRecord, Stream::kMain, kUsed + buffer});
    used_[buffer] = true;
  }
  if (++next_ == static_cast<int64_t>(known_.size())) next_ = -1;
  return steps;
}

}  // namespace toolkit::cuda

int32_t tk_prefetch_trace(const uint8_t* ahead, int64_t num_places, const tk_prefetch_use* uses, int64_t num_uses,
                          tk_prefetch_step* steps, int64_t capacity, int64_t* num_steps) {
  if (!ahead || !uses || !num_steps || num_places < 1 || num_uses < 1 || (capacity > 0 && !steps))
    return TK_ERR_ARGUMENT;
  return toolkit::guarded([&]() -> int32_t {
    toolkit::cuda::PrefetchOrder order;
    for (int64_t i = 0; i < num_places; ++i) order.add(i, {true, ahead[i] != 0, 1});
    std::map<int32_t, toolkit::cuda::PrefetchLane> lanes;
    *num_steps = 0;
    const auto put = [&](int64_t use, const std::vector<toolkit::cuda::PrefetchStep>& made) {
      for (const auto& step : made) {
        if (*num_steps < capacity)
          steps[*num_steps] = {
              static_cast<int32_t>(step.action), static_cast<int32_t>(step.stream), step.index, 0, step.value, use};
        ++*num_steps;
      }
      return !made.empty() && made.back().action == toolkit::cuda::Action::kUse;
    };
    for (int64_t i = 0; i < num_uses; ++i) {
      auto& lane = lanes.try_emplace(uses[i].lane, &order).first->second;
      const bool planned = put(i, lane.begin(uses[i].place));
      if (uses[i].fails)
        put(i, lane.abandon());
      else if (planned)
        put(i, lane.end());
    }
    return *num_steps <= capacity ? TK_OK : TK_ERR_ARGUMENT;
  });
}
