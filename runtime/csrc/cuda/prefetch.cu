// Memory for decoded weights, and decoding them ahead of their use on a second stream of the device.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iterator>

#include "device_memory.h"
#include "prefetch.h"
#include "weak_cache.h"

namespace toolkit::cuda {

// Buffers 0 and 1 take turns; 2 is for weights without a place, which may come between any two others.
constexpr int32_t kBuffers = 3, kBufferWithoutPlace = 2;

// What a run's stream has beside it: a second stream, events and buffers. Streams live longer than runs, so a lane is
// made once for each and kept.
struct Prefetch::Lane {
  explicit Lane(PrefetchOrder* order) : plan(order) {
    check(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking), "making a second stream");
    for (cudaEvent_t& event : events)
      check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  }
  ~Lane() {
    for (cudaEvent_t event : events) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    if (side != nullptr) cudaStreamDestroy(side);
  }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  std::mutex mutex;  // held while the host puts the work of one place on both streams
  PrefetchLane plan;
  cudaStream_t side = nullptr;
  cudaEvent_t events[kEvents] = {};
  void* buffers[kBuffers] = {};
  int64_t bytes[kBuffers] = {};
  std::vector<void*> outgrown;  // they may still be in use
};

std::shared_ptr<Prefetch> Prefetch::of_session(int64_t number) {
  static WeakCache<int64_t, Prefetch> sessions;
  return sessions.get(number, [] { return std::make_shared<Prefetch>(); });
}

Prefetch::Prefetch() = default;

Prefetch::~Prefetch() {
  for (auto& entry : lanes_) {  // the session has ended, and with it all work
    Lane& lane = *entry.second;
    lane.outgrown.insert(lane.outgrown.end(), std::begin(lane.buffers), std::end(lane.buffers));
    for (void* buffer : lane.outgrown) {
      if (buffer != nullptr) memory_.give_back(buffer);
    }
  }
}

int64_t Prefetch::add(int64_t wanted, int64_t bytes, AddToBatch decode, DeviceMemory memory) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!memory_.take) memory_ = std::move(memory);
  const bool ahead = static_cast<bool>(decode);
  if (wanted == kNoPlace || !order_.add(wanted, {true, ahead, bytes})) {
    most_without_place_ = std::max(most_without_place_, bytes);
    return kNoPlace;
  }
  if (ahead) decoders_[wanted] = std::move(decode);
  return wanted;
}

void Prefetch::remove(int64_t place) {
  if (place == kNoPlace) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  order_.remove(place);
  decoders_.erase(place);
}

Prefetch::Lane& Prefetch::lane_of(cudaStream_t stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::unique_ptr<Lane>& lane = lanes_[stream];
  if (lane == nullptr) lane = std::make_unique<Lane>(&order_);
  return *lane;
}

void* Prefetch::buffer_of(Lane& lane, int32_t index, int64_t bytes) {
  if (lane.bytes[index] >= bytes) return lane.buffers[index];
  void* const made = memory_.take(bytes);
  if (lane.buffers[index] != nullptr) lane.outgrown.push_back(lane.buffers[index]);
  lane.buffers[index] = made;
  lane.bytes[index] = bytes;
  return made;
}

AddToBatch Prefetch::decoder_of(int64_t place) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return decoders_.at(place);
}

void Prefetch::run(int64_t place, int64_t bytes, cudaStream_t stream, const AddToBatch& decode_now,
                   const std::function<void(void*)>& use) {
  Lane& lane = lane_of(stream);
  const std::lock_guard<std::mutex> lock(lane.mutex);
  bool used = false;
  const auto weight_at = [&](const PrefetchStep& step) -> void* {
    const int64_t needed = lane.plan.schedule()->buffer_bytes(step.index);
    return static_cast<char*>(buffer_of(lane, step.index, needed)) + step.offset;
  };
  const auto take = [&](const std::vector<PrefetchStep>& steps) {
    for (size_t i = 0; i < steps.size(); ++i) {
      const PrefetchStep& step = steps[i];
      cudaStream_t const on = step.stream == Stream::kMain ? stream : lane.side;
      switch (step.action) {
        case Action::kRecord:
          check(cudaEventRecord(lane.events[step.index], on), "recording an event");
          break;
        case Action::kWait:
          check(cudaStreamWaitEvent(on, lane.events[step.index], 0), "waiting for an event");
          break;
        case Action::kDecode: {
          DecodeBatch batch;
          for (;; ++i) {
            const AddToBatch& add = steps[i].value == place ? decode_now : decoder_of(steps[i].value);
            add(batch, weight_at(steps[i]));
            const bool more = i + 1 < steps.size() && steps[i + 1].action == Action::kDecode &&
                              steps[i + 1].stream == step.stream && steps[i + 1].index == step.index;
            if (!more) break;
          }
          batch.run(on);
          break;
        }
        case Action::kUse:
          used = true;
          use(weight_at(step));
          break;
      }
    }
  };
  const auto decode_alone = [&](int32_t index, int64_t most) {
    void* const buffer = buffer_of(lane, index, std::max(bytes, most));
    DecodeBatch batch;
    decode_now(batch, buffer);
    batch.run(stream);
    use(buffer);
  };
  if (place == kNoPlace) {
    decode_alone(kBufferWithoutPlace, most_without_place_);
    return;
  }
  try {
    take(lane.plan.begin(place));
    if (used) {
      take(lane.plan.end());
      return;
    }
  } catch (...) {
    try {
      take(lane.plan.abandon());
    } catch (const CudaError&) {  // what failed first is what is told
    }
    throw;
  }
  // Nothing is under way on the second stream.
  decode_alone(lane.bytes[1] >= bytes && lane.bytes[0] < bytes ? 1 : 0, order_.most_bytes());
}

}  // namespace toolkit::cuda
