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

DeviceWeight::DeviceWeight(const KernelInfo& info, size_t blob_input, bool zero_points)
    : of_(info, blob_input),
      blob_input_(blob_input),
      zero_points_(zero_points && info.input_type(blob_input + 2) != kUndefined),
      source_(of_.blob.constant(), of_.tensor, of_.name()) {
  constant_.table = info.constant_input(blob_input + 1);
  if (zero_points_) constant_.zero_point = info.constant_input(blob_input + 2);
  if (zero_points_ && !constant_.zero_point) constant_.table = {};
}

WeightTables DeviceWeight::tables(const KernelContext& context) const {
  return {context.input(blob_input_ + 1), zero_points_ ? context.input(blob_input_ + 2) : TensorView()};
}

DeviceDequantizedWeight::DeviceDequantizedWeight(const KernelInfo& info, size_t blob_input, int /*threads*/)
    : DeviceWeight(info, blob_input, true), axis_(info.integer("axis", 1)), block_(info.integer("block_size", 0)) {
  if (block_ < 0) throw std::runtime_error("block_size is negative");
}

tk_output DeviceDequantizedWeight::output(const WeightTables& tables) const {
  const TensorView &scale = tables.table, &zero_point = tables.zero_point;
  float_bytes(scale.type);
  if (zero_point && zero_point.shape != scale.shape) throw std::runtime_error("zero_point and scale differ in shape");
  if (zero_point && zero_point.type != kInt8 && zero_point.type != kInt16)
    throw std::runtime_error("zero_point must be int8 or int16");
  const ScalePlace place = place_scales(of_.shape, scale.shape, scale.count, axis_, block_);
  tk_output output{};
  output.kind = output.scale_type = scale.type;
  output.scales = scale.data;
  output.zero_type = zero_point ? zero_point.type : kUndefined;
  output.zero_points = zero_point ? zero_point.data : nullptr;
  output.num_scales = scale.count;
  output.inner = place.inner;
  output.length = place.length;
  output.block = place.block;
  output.num_values = of_.count;
  return output;
}

void DeviceDequantizedWeight::write_on(void* stream, const WeightTables& tables, void* out) const {
  source_.decode(stream, output(tables), out, of_.count * float_bytes(tables.table.type));
}

DeviceLookedUpWeight::DeviceLookedUpWeight(const KernelInfo& info, size_t blob_input, int /*threads*/)
    : DeviceWeight(info, blob_input, false), offset_(info.integer("offset", 0)) {}

tk_output DeviceLookedUpWeight::output(const WeightTables& tables) const {
  const TensorView& codebook = tables.table;
  if (codebook.shape.size() != 1) throw std::runtime_error("codebook must have one dimension");
  tk_output output{};
  output.kind = float_bytes(codebook.type) == 4 ? 33 : 32;
  output.codebook = codebook.data;
  output.num_entries = codebook.count;
  output.offset = offset_;
  output.num_values = of_.count;
  return output;
}

void DeviceLookedUpWeight::write_on(void* stream, const WeightTables& tables, void* out) const {
  source_.decode(stream, output(tables), out, of_.count * float_bytes(tables.table.type));
}

}  // namespace toolkit::ort
