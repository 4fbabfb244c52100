// Weights that kernels of the CPU provider decode to floating point.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_WEIGHTS_H
#define TOOLKIT_ORT_WEIGHTS_H

#include "ort_blob_weights.h"

namespace toolkit::ort {

class DequantizedWeight : public ScaledWeight {
 public:
  DequantizedWeight(const KernelInfo& info, size_t blob_input, int threads)
      : ScaledWeight(info, blob_input), threads_(threads) {}
  void write(const KernelContext& context, void* out) const;

 private:
  int threads_;
};

class LookedUpWeight : public CodebookWeight {
 public:
  LookedUpWeight(const KernelInfo& info, size_t blob_input, int threads)
      : CodebookWeight(info, blob_input), threads_(threads) {}
  void write(const KernelContext& context, void* out) const;

 private:
  int threads_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_WEIGHTS_H
