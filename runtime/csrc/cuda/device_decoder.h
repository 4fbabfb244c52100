// Decoders of tensors on a device: the blob's copy there, plans, launches.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_DEVICE_DECODER_H
#define TOOLKIT_CUDA_DEVICE_DECODER_H

#include <memory>
#include <vector>

#include "cuda_api.h"
#include "decode_plan.h"
#include "device_memory.h"

namespace toolkit::cuda {

// A word in the host's memory that kernels write where something is wrong.
class StatusWord {
 public:
  StatusWord();
  ~StatusWord();
  StatusWord(const StatusWord&) = delete;
  StatusWord& operator=(const StatusWord&) = delete;
  uint32_t* on_device() const { return device_; }
  tk_status read() const;

 private:
  uint32_t* host_ = nullptr;
  uint32_t* device_ = nullptr;
};

// What a device offers a launch; throws CudaError where it cannot be used.
DeviceLimits limits_of(int device);

}  // namespace toolkit::cuda

// One launch for a tensor, one for each group of tensors for the matrix of all symbols.
struct tk_cuda_decoder {
  struct Part {
    toolkit::cuda::DecodePlan plan;
    std::unique_ptr<toolkit::cuda::DeviceBuffer> image;
  };
  int device = 0;
  bool wide = false;
  int64_t most_values = 0;  // of the tensor; of the matrix all of it
  bool matrix = false;
  std::shared_ptr<const toolkit::cuda::DeviceBuffer> blob;
  std::vector<Part> parts;
  toolkit::cuda::StatusWord status;
};

#endif  // TOOLKIT_CUDA_DEVICE_DECODER_H
