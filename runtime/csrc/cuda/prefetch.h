// Memory for decoded weights, and decoding them ahead of their use on a second stream of the device.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_PREFETCH_H
#define TOOLKIT_CUDA_PREFETCH_H

#include <cuda_runtime_api.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "decode_batch.h"
#include "prefetch_plan.h"

namespace toolkit::cuda {

// How memory of the device is taken and given back; `take` throws where there is not enough.
struct DeviceMemory {
  std::function<void*(int64_t bytes)> take;
  std::function<void(void*)> give_back;
};

// Adds a weight to those that are decoded, to be written to `out`.
using AddToBatch = std::function<void(DecodeBatch& batch, void* out)>;

inline constexpr int64_t kNoPlace = -1;

// The weights of one session that are decoded for one product each. Several threads may use it, each in a run of its
// own on a stream of its own. A stream's buffers are taken when it first needs them, of the size of the largest group
// of weights that comes into each, and kept until the session ends: what a run did there may still be under way when it
// returns, and a captured graph comes back to them.
class Prefetch {
 public:
  // The session's, by the number that its nodes have; alive for as long as one of them holds it.
  static std::shared_ptr<Prefetch> of_session(int64_t number);
  Prefetch();
  ~Prefetch();
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  // Adds a weight and returns its place: the wanted one, or kNoPlace where that is taken or is kNoPlace. A weight
  // without a place is decoded when it is used, as is, at its place, one without `decode`. `memory` must stay good for
  // as long as the object.
  int64_t add(int64_t wanted, int64_t bytes, AddToBatch decode, DeviceMemory memory);
  void remove(int64_t place);
  // As PrefetchOrder's; before the first run.
  void limit_groups(int64_t bytes) { order_.limit_groups(bytes); }

  // A weight has its turn on the stream: calls use(weight), where the weight lies decoded when the work that `use` puts
  // on the stream has its turn.
  void run(int64_t place, int64_t bytes, cudaStream_t stream, const AddToBatch& decode_now,
           const std::function<void(void*)>& use);

 private:
  struct Lane;
  Lane& lane_of(cudaStream_t stream);
  void* buffer_of(Lane& lane, int32_t index, int64_t bytes);
  AddToBatch decoder_of(int64_t place);

  PrefetchOrder order_;
  std::mutex mutex_;
  std::map<int64_t, AddToBatch> decoders_;
  std::map<cudaStream_t, std::unique_ptr<Lane>> lanes_;
  DeviceMemory memory_;
  int64_t most_without_place_ = 0;  // bytes
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_PREFETCH_H
