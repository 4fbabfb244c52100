// An operator of the provider that a kernel runs on: made with the kernel, run on its context, any number of times.
// SPDX-License-Identifier: Apache-2.0
#include "ort_provider_op.h"

namespace toolkit::ort {

void OpAttributes::add(const char* name, const void* data, int size, AttributeType type) {
  OrtOpAttr* made = nullptr;
  check(CreateOpAttr::call(api(), name, data, size, static_cast<int>(type), &made));
  held_.emplace_back(made);
  all_.push_back(made);
}

ProviderOp::ProviderOp(const KernelInfo& info, const char* name, int version, ElementType type,
                       const OpAttributes& attributes, size_t num_inputs) {
  OrtOp* made = nullptr;
  const char* type_names[] = {"T"};
  const int types[] = {type};
  try {
    check(CreateOp::call(api(), info.get(), name, "", version, type_names, types, 1, attributes.all().data(),
                         static_cast<int>(attributes.all().size()), static_cast<int>(num_inputs), 1, &made));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error("the provider's " + std::string(name) + " of element type " + std::to_string(type) + ": " +
                             error.what());
  }
  op_.reset(made);
}

void ProviderOp::run(const KernelContext& context, const std::vector<const OrtValue*>& inputs, OrtValue* output) const {
  OrtValue* outputs[] = {output};
  check(InvokeOp::call(api(), static_cast<const OrtKernelContext*>(context.get()), static_cast<const OrtOp*>(op_.get()),
                       inputs.data(), static_cast<int>(inputs.size()), static_cast<OrtValue* const*>(outputs), 1));
}

}  // namespace toolkit::ort
