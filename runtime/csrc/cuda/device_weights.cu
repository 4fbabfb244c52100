// What the kernels of the CUDA provider decode: a tensor of a blob that lies on the device.
// SPDX-License-Identifier: Apache-2.0
#include "device_memory.h"
#include "device_weights.h"

namespace toolkit::ort {
namespace {

int current_device() {
  int device = 0;
  cuda::check(cudaGetDevice(&device), "asking for the current device");
  return device;
}

}  // namespace

void check_device(int32_t status, const std::string& what) {
  if (status == TK_ERR_NO_DEVICE || status == TK_ERR_DEVICE_MEMORY || status == TK_ERR_DEVICE)
    throw std::runtime_error(what + ": " + tk_status_text(status) + " (" + tk_cuda_problem() + ")");
  check_codec(status, what);
}

DeviceSource::DeviceSource(const Reader* reader, int64_t tensor, const std::string& name) : name_(name) {
  if (reader == nullptr) throw std::runtime_error("on CUDA the blob must be a constant initializer");
  check_device(tk_cuda_open(reader->get(), tensor, current_device(), -1, &decoder_), name_);
  try {
    verify(*reader, tensor);
  } catch (...) {
    tk_cuda_close(decoder_);
    throw;
  }
}

void DeviceSource::decode(void* stream, const tk_output& output, void* out, int64_t num_bytes) const {
  check_device(tk_cuda_decoded(decoder_), name_ + " in an earlier run");
  check_device(tk_cuda_decode(decoder_, &output, out, num_bytes, stream), name_);
}

void DeviceSource::verify(const Reader& reader, int64_t tensor) const {
  const int64_t size = reader.info().wide ? 2 : 1;
  tk_output output{};
  output.inner = 1;
  int64_t count = reader.info().num_lanes * reader.info().num_steps;
  if (tensor >= 0) {
    const tk_wide_tensor_info info = reader.tensor(tensor);
    count = output.num_values = info.a * info.b * info.c;
  }
  const cuda::DeviceBuffer scratch(static_cast<size_t>(count * size));
  check_device(tk_cuda_decode(decoder_, &output, scratch.as<void>(), count * size, nullptr), name_);
  cuda::check(cudaStreamSynchronize(nullptr), "waiting for the device");
  check_device(tk_cuda_decoded(decoder_), name_);
}

}  // namespace toolkit::ort
