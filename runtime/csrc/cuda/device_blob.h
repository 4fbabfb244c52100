// A blob on a device: its copy there, the plans of its tensors with their tables, a status for each tensor.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_DEVICE_BLOB_H
#define TOOLKIT_CUDA_DEVICE_BLOB_H

#include <memory>
#include <mutex>
#include <vector>

#include "cuda_api.h"
#include "decode_plan.h"
#include "device_memory.h"

namespace toolkit::cuda {

// Words in the host's memory that kernels write where something is wrong.
class StatusWords {
 public:
  explicit StatusWords(size_t count);
  ~StatusWords();
  StatusWords(const StatusWords&) = delete;
  StatusWords& operator=(const StatusWords&) = delete;
  uint32_t* on_device(size_t number) const { return device_ + number; }
  tk_status read(size_t number) const;

 private:
  uint32_t* host_ = nullptr;
  uint32_t* device_ = nullptr;
};

// All decoders of a reader share it, so that tables lie on the device once, however many tensors use them.
class DeviceBlob {
 public:
  // Tensors that one launch can decode.
  struct Way {
    DecodePlan plan;  // without its image
    std::unique_ptr<DeviceBuffer> image;
  };
  struct Place {
    size_t way, place;  // in the way's plan
  };

  // The reader's on the device; `layout` as in make_plan. Waits for the device.
  static std::shared_ptr<DeviceBlob> of(const tk_wide_reader& reader, int device, int layout);
  DeviceBlob(const tk_wide_reader& reader, int device, int layout, std::shared_ptr<const DeviceBuffer> words);

  int device() const { return device_; }
  bool wide() const { return wide_; }
  const std::vector<Way>& ways() const { return ways_; }
  size_t num_tensors() const { return places_.size(); }
  Place place_of(int64_t tensor) const { return places_[static_cast<size_t>(tensor)]; }
  int64_t size_of(int64_t tensor) const { return planned(tensor).job.size; }
  int64_t word_bytes() const { return static_cast<int64_t>(words_->bytes()); }

  // The request that writes a tensor, to be completed by what becomes of its symbols. The matrix of all symbols is made
  // of tensors, each with its own rows in `out`.
  PartRequest request_of(int64_t tensor, void* out, int64_t out_stride, int64_t most_values) const;
  int64_t stride_in_matrix() const { return num_steps_; }
  int64_t matrix_values() const { return num_lanes_ * num_steps_; }
  int64_t place_in_matrix(int64_t tensor) const { return planned(tensor).job.first_lane * num_steps_; }
  int64_t stride_of(int64_t tensor) const { return planned(tensor).job.lane_steps; }

  // The launch of a tensor, or with -1 of all of the first way.
  tk_plan_info describe(int64_t tensor) const;
  // Decodes parts of one way on the stream, as few launches as they fit into.
  void launch(size_t way, std::vector<PartRequest> parts, cudaStream_t stream) const;

  // Of a tensor: TK_OK while no decoding of it went wrong.
  tk_status status(int64_t tensor) const { return status_.read(static_cast<size_t>(tensor)); }
  // Decodes everything once, without writing it, and waits; afterwards status() tells of each tensor.
  void verify();

 private:
  const PlannedTensor& planned(int64_t tensor) const {
    const Place at = place_of(tensor);
    return ways_[at.way].plan.tensors[at.place];
  }

  int device_;
  bool wide_;
  int64_t num_lanes_, num_steps_;
  DeviceLimits limits_;
  std::shared_ptr<const DeviceBuffer> words_;
  std::vector<Way> ways_;
  std::vector<Place> places_;  // of the tensors
  StatusWords status_;
  std::once_flag verified_;
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_DEVICE_BLOB_H
