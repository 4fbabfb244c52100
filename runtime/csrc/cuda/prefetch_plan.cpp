// When the weights of a session are decoded ahead of their use: host code without CUDA.
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
  schedule_ = nullptr;
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
  schedule_ = nullptr;
  given_up_ = true;
}

void PrefetchOrder::limit_groups(int64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  group_bytes_ = bytes;
  schedule_ = nullptr;
}

void PrefetchOrder::learn(const std::vector<int64_t>& run) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (given_up_ || !learning_ || !order_.empty()) return;
  std::vector<int64_t> sorted = run;
  std::sort(sorted.begin(), sorted.end());
  if (sorted != present()) return;
  order_ = run;
  schedule_ = nullptr;
}

int64_t PrefetchOrder::first() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return first_;
}

void PrefetchOrder::miss(int64_t first) {
  const std::lock_guard<std::mutex> lock(mutex_);
  first_ = first;
  order_.clear();
  schedule_ = nullptr;
  given_up_ = learning_;
  learning_ = true;
}

int64_t PrefetchOrder::most_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t bytes = 0;
  for (const PrefetchPlace& place : places_) bytes = std::max(bytes, place.bytes);
  return bytes;
}

std::shared_ptr<const PrefetchSchedule> PrefetchOrder::schedule() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (schedule_ == nullptr && order_.size() > 1) schedule_ = make_schedule();
  return schedule_;
}

std::shared_ptr<const PrefetchSchedule> PrefetchOrder::make_schedule() const {
  int64_t total = 0, largest = 0;
  for (const int64_t place : order_) {
    const int64_t bytes = places_[static_cast<size_t>(place)].bytes;
    total += bytes;
    largest = std::max(largest, bytes);
  }
  const int64_t limit =
      group_bytes_ > 0 ? group_bytes_ : std::max({largest, total / 32, std::min(total / 16, kEnoughBytes)});
  auto made = std::make_shared<PrefetchSchedule>();
  made->places = order_;
  for (size_t position = 0; position < order_.size(); ++position) {
    const PrefetchPlace& place = places_[static_cast<size_t>(order_[position])];
    auto& groups = made->groups;
    if (groups.empty() || !place.ahead || !groups.back().ahead || groups.back().bytes + place.bytes > limit)
      groups.push_back({position, position, place.ahead, 0});
    made->group_of.push_back(groups.size() - 1);
    made->offsets.push_back(groups.back().bytes);
    groups.back().end = position + 1;
    groups.back().bytes += (place.bytes + kWeightAlignment - 1) / kWeightAlignment * kWeightAlignment;
  }
  return made;
}

int64_t PrefetchSchedule::buffer_bytes(int32_t buffer) const {
  int64_t bytes = 0;
  for (size_t group = 0; group < groups.size(); ++group)
    if (static_cast<int32_t>(group % 2) == buffer) bytes = std::max(bytes, groups[group].bytes);
  return bytes;
}

void PrefetchLane::join(std::vector<PrefetchStep>* steps) {
  if (ahead_ >= 0) steps->push_back({Action::kWait, Stream::kMain, kDecoded + static_cast<int32_t>(ahead_ % 2)});
  ahead_ = -1;
}

void PrefetchLane::decode(size_t group, Stream stream, std::vector<PrefetchStep>* steps) {
  for (size_t position = known_->groups[group].first; position < known_->groups[group].end; ++position)
    steps->push_back({Action::kDecode, stream, static_cast<int32_t>(group % 2), known_->places[position],
                      known_->offsets[position]});
}

std::vector<PrefetchStep> PrefetchLane::abandon() {
  std::vector<PrefetchStep> steps;
  join(&steps);
  next_ = -1;
  run_.clear();
  return steps;
}

std::vector<PrefetchStep> PrefetchLane::begin(int64_t place) {
  const std::shared_ptr<const PrefetchSchedule> schedule = order_->schedule();
  if (schedule == nullptr || (next_ >= 0 && schedule != known_)) {
    std::vector<PrefetchStep> steps;
    if (next_ >= 0 || ahead_ >= 0) steps = abandon();
    if (place == order_->first()) {
      order_->learn(run_);
      run_.clear();
      if (order_->schedule() != nullptr) {
        const std::vector<PrefetchStep> more = begin(place);
        steps.insert(steps.end(), more.begin(), more.end());
        return steps;
      }
    }
    if (place == order_->first() || !run_.empty()) run_.push_back(place);
    return steps;
  }
  std::vector<PrefetchStep> steps;
  known_ = schedule;
  const std::vector<int64_t>& places = known_->places;
  if (place == places[0]) {
    run_.clear();
    // The run before may have failed on its way: what it began is waited for.
    join(&steps);
    next_ = 0;
    used_[0] = used_[1] = false;
    steps.push_back({Action::kRecord, Stream::kMain, kBegin});
    steps.push_back({Action::kWait, Stream::kSide, kBegin});
  }
  if (next_ < 0 && !run_.empty()) return steps;  // in the middle of a run that began before its order was known
  if (next_ < 0 || place != places[static_cast<size_t>(next_)]) {
    std::vector<int64_t> run(places.begin(), places.begin() + std::max<int64_t>(next_, 0));
    run.push_back(place);
    order_->miss(run.front());
    steps = abandon();
    run_ = std::move(run);
    return steps;
  }
  const auto position = static_cast<size_t>(next_);
  const size_t group = known_->group_of[position], following = group + 1;
  if (position == known_->groups[group].first) {
    if (ahead_ == static_cast<int64_t>(group))
      join(&steps);
    else
      decode(group, Stream::kMain, &steps);
    if (following < known_->groups.size() && known_->groups[following].ahead) {
      const auto buffer = static_cast<int32_t>(following % 2);
      if (used_[buffer]) steps.push_back({Action::kWait, Stream::kSide, kUsed + buffer});
      used_[buffer] = false;
      decode(following, Stream::kSide, &steps);
      steps.push_back({Action::kRecord, Stream::kSide, kDecoded + buffer});
      ahead_ = static_cast<int64_t>(following);
    }
  }
  steps.push_back({Action::kUse, Stream::kMain, static_cast<int32_t>(group % 2), place, known_->offsets[position]});
  return steps;
}

std::vector<PrefetchStep> PrefetchLane::end() {
  std::vector<PrefetchStep> steps;
  const auto position = static_cast<size_t>(next_);
  const size_t group = known_->group_of[position], again = group + 2;  // who is decoded into this buffer next
  if (position + 1 == known_->groups[group].end && again < known_->groups.size() && known_->groups[again].ahead) {
    const auto buffer = static_cast<int32_t>(group % 2);
    steps.push_back({Action::kRecord, Stream::kMain, kUsed + buffer});
    used_[buffer] = true;
  }
  if (++next_ == static_cast<int64_t>(known_->places.size())) next_ = -1;
  return steps;
}

}  // namespace toolkit::cuda

int32_t tk_prefetch_trace(const uint8_t* ahead, const int64_t* bytes, int64_t num_places, int64_t group_bytes,
                          const tk_prefetch_use* uses, int64_t num_uses, tk_prefetch_step* steps, int64_t capacity,
                          int64_t* num_steps) {
  if (!ahead || !bytes || !uses || !num_steps || num_places < 1 || num_uses < 1 || group_bytes < 0 ||
      (capacity > 0 && !steps))
    return TK_ERR_ARGUMENT;
  return toolkit::guarded([&]() -> int32_t {
    toolkit::cuda::PrefetchOrder order;
    for (int64_t i = 0; i < num_places; ++i) order.add(i, {true, ahead[i] != 0, bytes[i]});
    order.limit_groups(group_bytes);
    std::map<int32_t, toolkit::cuda::PrefetchLane> lanes;
    *num_steps = 0;
    const auto put = [&](int64_t use, const std::vector<toolkit::cuda::PrefetchStep>& made) {
      for (const auto& step : made) {
        if (*num_steps < capacity)
          steps[*num_steps] = {static_cast<int32_t>(step.action),
                               static_cast<int32_t>(step.stream),
                               step.index,
                               0,
                               step.value,
                               step.offset,
                               use};
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
