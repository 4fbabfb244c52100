// Weights that kernels of the CPU provider decode to floating point.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_WEIGHTS_H
#define TOOLKIT_ORT_WEIGHTS_H

#include "ort_fused.h"

namespace toolkit::ort {

// A tensor of a blob, whose floating point type is that of the input behind the blob.
class WeightOfBlob {
 public:
  const Shape& shape() const { return source_.shape; }
  ElementType type(const KernelContext& context) const { return context.input(blob_input_ + 1).type; }

 protected:
  WeightOfBlob(const KernelInfo& info, size_t blob_input, int threads)
      : source_(info, blob_input), blob_input_(blob_input), threads_(threads) {}

  TensorOfBlob source_;
  size_t blob_input_;
  int threads_;
};

// scale * (symbol - zero_point), as in DequantizeLinear.
class DequantizedWeight : public WeightOfBlob {
 public:
  static constexpr size_t kInputs = 3;  // blob, scale, zero point
  DequantizedWeight(const KernelInfo& info, size_t blob_input, int threads);
  void check(const KernelContext& context) const;
  void write(const KernelContext& context, void* out) const;

 private:
  int64_t axis_, block_;
};

// codebook[symbol + offset]
class LookedUpWeight : public WeightOfBlob {
 public:
  static constexpr size_t kInputs = 2;  // blob, codebook
  LookedUpWeight(const KernelInfo& info, size_t blob_input, int threads);
  void check(const KernelContext& context) const;
  void write(const KernelContext& context, void* out) const;

 private:
  int64_t offset_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_WEIGHTS_H
