// Decoding weights one ahead of their use, on a second stream of the device.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_PREFETCH_H
#define TOOLKIT_CUDA_PREFETCH_H

#include <cuda_runtime_api.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "prefetch_plan.h"

namespace toolkit::cuda {

// How the memory of a run's stream is taken and given back.
struct StreamMemory {
  std::function<void*(int64_t bytes)> take;
  std::function<void(void*)> give_back;
};

using DecodeOn = std::function<void(void* stream, void* out)>;

// The places of one session. Several threads may use it, each in a run of its own.
class Prefetch {
 public:
  // The session's, by the number that its nodes have; alive for as long as one of them holds it.
  static std::shared_ptr<Prefetch> of_session(int64_t number);
  Prefetch() = default;
  ~Prefetch();
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  // Adds a weight; without `decode` it is never decoded ahead. False where the place is taken. `give_back` must stay
  // good for as long as the object.
  bool add(int64_t place, int64_t bytes, DecodeOn decode, std::function<void(void*)> give_back);
  void remove(int64_t place);

  // A place has its turn on the stream: calls use(weight), where the weight lies decoded when the work on the stream
  // that `use` adds has its turn. Returns false where it did nothing, because the order of the session is not known.
  bool run(int64_t place, cudaStream_t stream, const StreamMemory& memory, const DecodeOn& decode_now,
           const std::function<void(void*)>& use);

 private:
  struct Lane;
  Lane& lane_of(cudaStream_t stream);

  PrefetchOrder order_;
  std::mutex mutex_;
  std::map<int64_t, DecodeOn> decoders_;
  std::map<cudaStream_t, std::unique_ptr<Lane>> lanes_;
  std::function<void(void*)> give_back_;
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_PREFETCH_H
