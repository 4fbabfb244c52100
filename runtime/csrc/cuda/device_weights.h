// What the kernels of the CUDA provider decode: a tensor of a blob that lies on the device.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_DEVICE_WEIGHTS_H
#define TOOLKIT_CUDA_DEVICE_WEIGHTS_H

#include "cuda_api.h"
#include "decode_batch.h"
#include "ort_blob_weights.h"

namespace toolkit::ort {

// Throws "<what>: <text of the status>" unless the status is TK_OK.
void check_device(int32_t status, const std::string& what);

// A decoder on the device that the session uses. When it is made, the blob has been decoded once on the device, to see
// that it decodes.
class DeviceSource {
 public:
  DeviceSource(const Reader* reader, int64_t tensor, const std::string& name);
  ~DeviceSource() { tk_cuda_close(decoder_); }
  DeviceSource(const DeviceSource&) = delete;
  DeviceSource& operator=(const DeviceSource&) = delete;

  // Adds the tensor to those that are decoded. Throws where a run before met a symbol outside the codebook.
  void add_to(cuda::DecodeBatch* batch, const tk_output& output, void* out, int64_t num_bytes) const;
  void decode(void* stream, const tk_output& output, void* out, int64_t num_bytes) const;

 private:
  std::string name_;
  tk_cuda_decoder* decoder_ = nullptr;
};

// A weight class as in ort_fused.h of the form ScaledWeight or CodebookWeight, that can also be decoded together with
// others, by tables that are constant.
template <class Form>
class DeviceWeight : public Form {
 public:
  DeviceWeight(const KernelInfo& info, size_t blob_input, int /*threads*/)
      : Form(info, blob_input),
        constant_(Form::constant_tables(info)),
        source_(this->of_.blob.constant(), this->of_.tensor, this->of_.name()) {}

  using Form::tables;
  // Empty unless all of them are constant.
  const WeightTables& constant_tables() const { return constant_; }
  void write(const KernelContext& context, void* out) const {
    cuda::DecodeBatch batch;
    add_to(&batch, tables(context), out);
    batch.run(context.stream());
  }
  void add_to(cuda::DecodeBatch* batch, const WeightTables& tables, void* out) const {
    source_.add_to(batch, Form::output(tables), out, this->of_.count * float_bytes(tables.table.type));
  }

 private:
  WeightTables constant_;
  DeviceSource source_;
};

using DeviceScaledWeight = DeviceWeight<ScaledWeight>;
using DeviceCodebookWeight = DeviceWeight<CodebookWeight>;

}  // namespace toolkit::ort

#endif  // TOOLKIT_CUDA_DEVICE_WEIGHTS_H
