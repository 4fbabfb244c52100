// An operator of the provider that a kernel runs on: made with the kernel, run on its context, any number of times.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_PROVIDER_OP_H
#define TOOLKIT_ORT_PROVIDER_OP_H

#include <memory>
#include <string>
#include <vector>

#include "ort_kernel.h"

namespace toolkit::ort {

// The attributes of an operator, each set once.
class OpAttributes {
 public:
  void integer(const char* name, int64_t value) { add(name, &value, 1, kAttributeInt); }
  void real(const char* name, float value) { add(name, &value, 1, kAttributeFloat); }
  void integers(const char* name, const Shape& values) {
    add(name, values.data(), static_cast<int>(values.size()), kAttributeInts);
  }
  void text(const char* name, const std::string& value) {
    add(name, value.c_str(), static_cast<int>(value.size()), kAttributeString);
  }
  const std::vector<const OrtOpAttr*>& all() const { return all_; }

 private:
  struct Release {
    void operator()(OrtOpAttr* attribute) const { ReleaseOpAttr::call(api(), attribute); }
  };
  void add(const char* name, const void* data, int size, AttributeType type);

  std::vector<std::unique_ptr<OrtOpAttr, Release>> held_;
  std::vector<const OrtOpAttr*> all_;
};

class ProviderOp {
 public:
  // The operator of the standard domain; throws where the kernel's provider has none for this type.
  ProviderOp(const KernelInfo& info, const char* name, int version, ElementType type, const OpAttributes& attributes,
             size_t num_inputs);
  // Puts the operator's work where the kernel's own goes: on the CPU it is done on return, on CUDA it is on the stream.
  void run(const KernelContext& context, const std::vector<const OrtValue*>& inputs, OrtValue* output) const;

 private:
  struct Release {
    void operator()(OrtOp* op) const { ReleaseOp::call(api(), op); }
  };
  std::unique_ptr<OrtOp, Release> op_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_PROVIDER_OP_H
