// Weights that are decoded from a tensor of a blob, on every provider: what a node says of them, and its checks.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_BLOB_WEIGHTS_H
#define TOOLKIT_ORT_BLOB_WEIGHTS_H

#include "cuda/cuda_api.h"
#include "ort_fused.h"

namespace toolkit::ort {

// The tensors that a weight is decoded by: those of a run, or the constants that a node has for them.
struct WeightTables {
  TensorView table, zero_point;  // scale or codebook; empty where there is none
};

// A tensor of a blob, whose floating point type is that of the input behind the blob.
class WeightOfBlob {
 public:
  static constexpr ElementType kStored = kUint16;
  const Shape& shape() const { return of_.shape; }
  ElementType type(const KernelContext& context) const { return context.input(blob_input_ + 1).type; }

 protected:
  WeightOfBlob(const KernelInfo& info, size_t blob_input) : of_(info, blob_input), blob_input_(blob_input) {}

  TensorOfBlob of_;
  size_t blob_input_;
};

// scale * (symbol - zero_point), as in DequantizeLinear.
class ScaledWeight : public WeightOfBlob {
 public:
  static constexpr size_t kInputs = 3;  // blob, scale, zero point
  void check(const KernelContext& context) const { place(tables(context)); }

 protected:
  ScaledWeight(const KernelInfo& info, size_t blob_input);
  WeightTables tables(const KernelContext& context) const;
  // Empty unless all of them are constant.
  WeightTables constant_tables(const KernelInfo& info) const;
  // Checks the tables.
  ScalePlace place(const WeightTables& tables) const;
  // For the GPU's decoder.
  tk_output output(const WeightTables& tables) const;

 private:
  int64_t axis_, block_;
  bool has_zero_point_;
};

// codebook[symbol + offset]
class CodebookWeight : public WeightOfBlob {
 public:
  static constexpr size_t kInputs = 2;  // blob, codebook
  void check(const KernelContext& context) const { check(tables(context)); }

 protected:
  CodebookWeight(const KernelInfo& info, size_t blob_input);
  WeightTables tables(const KernelContext& context) const;
  WeightTables constant_tables(const KernelInfo& info) const;
  void check(const WeightTables& tables) const;
  tk_output output(const WeightTables& tables) const;

  int64_t offset_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_BLOB_WEIGHTS_H
