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
    check_device(tk_cuda_verify(decoder_), name_);
  } catch (...) {
    tk_cuda_close(decoder_);
    throw;
  }
}

void DeviceSource::add_to(cuda::DecodeBatch* batch, const tk_output& output, void* out, int64_t num_bytes) const {
  check_device(tk_cuda_decoded(decoder_), name_ + " in an earlier run");
  batch->add(name_, decoder_, output, out, num_bytes);
}

void DeviceSource::decode(void* stream, const tk_output& output, void* out, int64_t num_bytes) const {
  cuda::DecodeBatch batch;
  add_to(&batch, output, out, num_bytes);
  batch.run(stream);
}

}  // namespace toolkit::ort

namespace toolkit::cuda {

void DecodeBatch::run(void* stream) const {
  if (!tensors_.empty()) {
    std::vector<tk_cuda_request> requests;
    for (const Tensor& each : tensors_) requests.push_back({each.decoder, &each.output, each.out, each.out_bytes});
    const int32_t status = tk_cuda_decode_all(requests.data(), static_cast<int64_t>(requests.size()), stream);
    const std::string more = requests.size() == 1 ? "" : " and the weights behind it";
    ort::check_device(status, *tensors_.front().name + more);
  }
  for (const auto& other : others_) other(stream);
}

}  // namespace toolkit::cuda
