// Decoding weights one ahead of their use, on a second stream of the device.
// SPDX-License-Identifier: Apache-2.0
#include "device_memory.h"
#include "prefetch.h"

namespace toolkit::cuda {

// What a run's stream has beside it: a second stream, events, and while a run is under way two buffers. Streams live
// longer than runs, so a lane is made once for each and kept.
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
  void* buffers[2] = {};
};

std::shared_ptr<Prefetch> Prefetch::of_session(int64_t number) {
  static std::mutex mutex;
  static std::map<int64_t, std::weak_ptr<Prefetch>> sessions;
  const std::lock_guard<std::mutex> lock(mutex);
  for (auto entry = sessions.begin(); entry != sessions.end();)
    entry = entry->second.expired() ? sessions.erase(entry) : std::next(entry);
  std::weak_ptr<Prefetch>& known = sessions[number];
  std::shared_ptr<Prefetch> found = known.lock();
  if (found == nullptr) known = found = std::make_shared<Prefetch>();
  return found;
}

Prefetch::~Prefetch() {
  // Only a run that failed on its way leaves buffers; the session has ended, and with it all work.
  for (auto& entry : lanes_) {
    for (void* buffer : entry.second->buffers) {
      if (buffer != nullptr) give_back_(buffer);
    }
  }
}

bool Prefetch::add(int64_t place, int64_t bytes, DecodeOn decode, std::function<void(void*)> give_back) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool ahead = static_cast<bool>(decode);
  if (!order_.add(place, {true, ahead, bytes})) return false;
  if (ahead) decoders_[place] = std::move(decode);
  if (!give_back_) give_back_ = std::move(give_back);
  return true;
}

void Prefetch::remove(int64_t place) {
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

bool Prefetch::run(int64_t place, cudaStream_t stream, const StreamMemory& memory, const DecodeOn& decode_now,
                   const std::function<void(void*)>& use) {
  Lane& lane = lane_of(stream);
  const std::lock_guard<std::mutex> lock(lane.mutex);
  bool used = false;
  const auto take = [&](const std::vector<PrefetchStep>& steps) {
    for (const PrefetchStep& step : steps) {
      cudaStream_t const on = step.stream == Stream::kMain ? stream : lane.side;
      switch (step.action) {
        case Action::kAllocate:
          lane.buffers[step.index] = memory.take(step.value);
          break;
        case Action::kFree:
          if (lane.buffers[step.index] != nullptr) memory.give_back(lane.buffers[step.index]);
          lane.buffers[step.index] = nullptr;
          break;
        case Action::kRecord:
          check(cudaEventRecord(lane.events[step.index], on), "recording an event");
          break;
        case Action::kWait:
          check(cudaStreamWaitEvent(on, lane.events[step.index], 0), "waiting for an event");
          break;
        case Action::kDecode:
          if (step.value == place) {
            decode_now(on, lane.buffers[step.index]);
          } else {
            DecodeOn decode;
            {
              const std::lock_guard<std::mutex> places(mutex_);
              decode = decoders_.at(step.value);
            }
            decode(on, lane.buffers[step.index]);
          }
          break;
        case Action::kUse:
          use(lane.buffers[step.index]);
          used = true;
          break;
      }
    }
  };
  try {
    take(lane.plan.begin(place));
    if (used) take(lane.plan.end());
  } catch (...) {
    try {
      take(lane.plan.abandon());
    } catch (const CudaError&) {  // what failed first is what is told
    }
    throw;
  }
  return used;
}

}  // namespace toolkit::cuda
