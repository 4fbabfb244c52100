// The ops MatMulPacked and MatMulPackedCodebook: few rows are multiplied straight from the packed weight, for many it
// is unpacked and the provider's own product is run. SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_PACKED_MATMUL_H
#define TOOLKIT_ORT_PACKED_MATMUL_H

#include <optional>

#include "ort_packed.h"
#include "ort_provider_op.h"

namespace toolkit::ort {

// Up to so many rows the packed weight is read again for each eight, from the cache at best; unpacking it writes and
// reads it once in float16, 16 / bits times the bytes. Reckoned, not measured: about as long at 4 bits.
inline constexpr int64_t kRowsFromPacked = 96;

// Weight is a provider's PackedWeight, Scratch as in ort_products.h; Multiply(threads)(const tk_packed&, const
// KernelContext&) is the product straight from the packed weight.
template <bool kCodebook, class Weight, class Scratch, class Multiply>
class MatMulPacked {
 public:
  MatMulPacked(const KernelInfo& info, int threads)
      : node_(info), weight_(info, 1, threads, node_.weight_shape()), scratch_(info, weight_), multiply_(threads) {
    OpAttributes attributes;
    attributes.integer("transB", 1);
    try {
      dense_.emplace(info, "Gemm", 13, kFloat16, attributes, 2);
    } catch (const std::runtime_error&) {  // as on the CPU: all products are then those from the packed weight
    }
  }

  void compute(KernelContext& context) const {
    Shape shape;
    tk_packed product = node_.describe(context, &shape);
    product.out = context.output(shape);
    if (product.batch == 0) return;
    if (product.batch <= kRowsFromPacked || !dense_) {
      multiply_(product, context);
      return;
    }
    const auto x = scratch_.view(const_cast<void*>(product.x), {product.batch, product.inputs}, kFloat16);
    const auto out = scratch_.view(product.out, {product.batch, product.outputs}, kFloat16);
    scratch_.with(context, weight_, kFloat16,
                  [&](const OrtValue* weight) { dense_->run(context, {x.get(), weight}, out.get()); });
  }

  static void infer(ShapeContext& shapes) { PackedNode<kCodebook>::infer(shapes); }

 private:
  PackedNode<kCodebook> node_;
  Weight weight_;
  Scratch scratch_;
  Multiply multiply_;
  std::optional<ProviderOp> dense_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_PACKED_MATMUL_H
