// What the kernels of the CUDA provider decode: a tensor of a blob that lies on the device.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_DEVICE_WEIGHTS_H
#define TOOLKIT_CUDA_DEVICE_WEIGHTS_H

#include "cuda_api.h"
#include "ort_fused.h"

namespace toolkit::ort {

// Throws "<what>: <text of the status>" unless the status is TK_OK.
void check_device(int32_t status, const std::string& what);

// A decoder on the device that the session uses. It decodes once when it is made, to see that the blob decodes.
class DeviceSource {
 public:
  DeviceSource(const Reader* reader, int64_t tensor, const std::string& name);
  ~DeviceSource() { tk_cuda_close(decoder_); }
  DeviceSource(const DeviceSource&) = delete;
  DeviceSource& operator=(const DeviceSource&) = delete;

  // Decodes on a stream. Also throws where a run before met a symbol outside the codebook.
  void decode(void* stream, const tk_output& output, void* out, int64_t num_bytes) const;

 private:
  void verify(const Reader& reader, int64_t tensor) const;

  std::string name_;
  tk_cuda_decoder* decoder_ = nullptr;
};

// The tensors that a weight is decoded by: those of a run, or the constants that a node has for them.
struct WeightTables {
  TensorView table, zero_point;  // scale or codebook; empty where there is none
};

// A weight class as in ort_fused.h, that can also be decoded on another stream, by tables that are constant.
class DeviceWeight {
 public:
  DeviceWeight(const KernelInfo& info, size_t blob_input, bool zero_points);
  const Shape& shape() const { return of_.shape; }
  ElementType type(const KernelContext& context) const { return context.input(blob_input_ + 1).type; }
  WeightTables tables(const KernelContext& context) const;
  // Empty unless all of them are constant.
  const WeightTables& constant_tables() const { return constant_; }

 protected:
  TensorOfBlob of_;
  size_t blob_input_;
  bool zero_points_;
  WeightTables constant_;
  DeviceSource source_;
};

class DeviceDequantizedWeight : public DeviceWeight {
 public:
  static constexpr size_t kInputs = 3;  // blob, scale, zero point
  DeviceDequantizedWeight(const KernelInfo& info, size_t blob_input, int threads);
  void check(const KernelContext& context) const { output(tables(context)); }
  void write(const KernelContext& context, void* out) const { write_on(context.stream(), tables(context), out); }
  void write_on(void* stream, const WeightTables& tables, void* out) const;

 private:
  tk_output output(const WeightTables& tables) const;
  int64_t axis_, block_;
};

class DeviceLookedUpWeight : public DeviceWeight {
 public:
  static constexpr size_t kInputs = 2;  // blob, codebook
  DeviceLookedUpWeight(const KernelInfo& info, size_t blob_input, int threads);
  void check(const KernelContext& context) const { output(tables(context)); }
  void write(const KernelContext& context, void* out) const { write_on(context.stream(), tables(context), out); }
  void write_on(void* stream, const WeightTables& tables, void* out) const;

 private:
  tk_output output(const WeightTables& tables) const;
  int64_t offset_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_CUDA_DEVICE_WEIGHTS_H
