// What the ops MatMulPacked and ConvPacked, and the same with `Codebook` behind the name, are on every provider.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_PACKED_H
#define TOOLKIT_ORT_PACKED_H

#include <numeric>

#include "cuda/cuda_api.h"
#include "ort_fused.h"

namespace toolkit::ort {

// x float16 [..., inputs], packed uint32 [words], scales float16 [groups, outputs], and zeros of the scales' shape or a
// codebook float16 [2^bits] -> float16 [..., outputs]. Attributes as MatMulNBits has them: N outputs, K inputs, bits of
// a field, block_size inputs that share a scale.
template <bool kCodebook>
class PackedNode {
 public:
  explicit PackedNode(const KernelInfo& info)
      : outputs_(info.integer("N")),
        inputs_(info.integer("K")),
        bits_(info.integer("bits")),
        group_(info.integer("block_size")) {
    words_ = tk_packed_words(outputs_, inputs_, static_cast<int32_t>(bits_));
    if (words_ == 0 || group_ < 1) throw std::runtime_error("N, K, bits or block_size is out of range");
  }

  // Checks all inputs. The product's batch is 0 where x is empty; its output has the shape *shape.
  tk_packed describe(const KernelContext& context, Shape* shape) const {
    const TensorView x = context.input(0), packed = context.input(1), scales = context.input(2);
    const TensorView more = context.input(3);
    const Shape wanted{(inputs_ - 1) / group_ + 1, outputs_};
    if (x.shape.empty() || x.shape.back() != inputs_)
      throw std::runtime_error("the last dimension of x is not " + std::to_string(inputs_));
    if (packed.count != words_)
      throw std::runtime_error(std::to_string(packed.count) + " words of packed weights, expected " +
                               std::to_string(words_));
    if (scales.shape != wanted) throw std::runtime_error("scales must be [groups, outputs]");
    if (more.shape != (kCodebook ? Shape{int64_t{1} << bits_} : wanted))
      throw std::runtime_error(kCodebook ? "the codebook must have an entry for each field"
                                         : "zeros and scales differ in shape");
    *shape = x.shape;
    shape->back() = outputs_;
    tk_packed product{};
    product.x = x.data;
    product.packed = packed.data;
    product.scales = scales.data;
    (kCodebook ? product.codebook : product.zeros) = more.data;
    product.batch = x.count / inputs_;
    product.outputs = outputs_;
    product.inputs = inputs_;
    product.group_inputs = group_;
    product.bits = static_cast<int32_t>(bits_);
    return product;
  }

  Shape weight_shape() const { return {outputs_, inputs_}; }

  static void infer(ShapeContext& shapes) {
    Shape shape = shapes.input_shape(0);
    std::vector<int> origins(shape.size());
    std::iota(origins.begin(), origins.end(), 0);
    if (!shape.empty()) shape.back() = shapes.integer("N");
    shapes.set_output(kFloat16, shape, origins);
  }

 private:
  int64_t outputs_, inputs_, bits_, group_;
  int64_t words_ = 0;
};

// The tensors that a packed weight is made of: those of a run, or the constants that a node has for them.
struct PackedTables {
  TensorView table;  // the packed words
  TensorView scales, more;
};

// The weight of the ops ConvPacked and MatMulPacked: packed uint32 [words], scales T [groups, outputs], and zeros of
// the scales' shape or a codebook T [2^bits], for T float32 or float16. Outputs are the first dimension of its shape,
// inputs all others. Attributes: bits of a field, block_size inputs that share a scale. A weight class as in
// ort_fused.h.
template <bool kCodebook>
class PackedWeight {
 public:
  static constexpr size_t kInputs = 3;
  static constexpr ElementType kStored = kUint32;

  const Shape& shape() const { return shape_; }
  ElementType type(const KernelContext& context) const { return context.input(first_ + 1).type; }
  void check(const KernelContext& context) const { describe(tables(context), nullptr); }
  PackedTables tables(const KernelContext& context) const {
    return {context.input(first_), context.input(first_ + 1), context.input(first_ + 2)};
  }

 protected:
  PackedWeight(const KernelInfo& info, size_t first, Shape shape)
      : first_(first), shape_(std::move(shape)), bits_(info.integer("bits")), group_(info.integer("block_size")) {
    const int64_t count = element_count(shape_);
    outputs_ = shape_.empty() ? 0 : shape_[0];
    inputs_ = outputs_ > 0 ? count / outputs_ : 0;
    words_ = tk_packed_words(outputs_, inputs_, static_cast<int32_t>(bits_));
    if (words_ == 0 || group_ < 1) throw std::runtime_error("shape, bits or block_size is out of range");
  }

  // Empty unless all of them are constant.
  PackedTables constant_tables(const KernelInfo& info) const {
    PackedTables tables{info.constant_input(first_), info.constant_input(first_ + 1), info.constant_input(first_ + 2)};
    return tables.table && tables.scales && tables.more ? tables : PackedTables();
  }

  // Checks the tables.
  tk_unpacking describe(const PackedTables& tables, void* out) const {
    const auto& [packed, scales, more] = tables;
    const Shape wanted{(inputs_ - 1) / group_ + 1, outputs_};
    float_bytes(scales.type);
    if (packed.count != words_)
      throw std::runtime_error(std::to_string(packed.count) + " words of packed weights, expected " +
                               std::to_string(words_));
    if (scales.shape != wanted) throw std::runtime_error("scales must be [groups, outputs]");
    if (more.shape != (kCodebook ? Shape{int64_t{1} << bits_} : wanted) || more.type != scales.type)
      throw std::runtime_error(kCodebook ? "the codebook must have an entry for each field, of the scales' type"
                                         : "zeros and scales differ in shape or type");
    tk_unpacking unpacking{};
    unpacking.packed = packed.data;
    unpacking.scales = scales.data;
    (kCodebook ? unpacking.codebook : unpacking.zeros) = more.data;
    unpacking.out = out;
    unpacking.outputs = outputs_;
    unpacking.inputs = inputs_;
    unpacking.group_inputs = group_;
    unpacking.bits = static_cast<int32_t>(bits_);
    unpacking.type = scales.type;
    return unpacking;
  }

 private:
  size_t first_;
  Shape shape_;
  int64_t bits_, group_;
  int64_t outputs_ = 0, inputs_ = 0, words_ = 0;
};

inline std::vector<std::pair<ElementType, Characteristic>> packed_inputs() {
  return {{kFloat16, kRequired}, {kUint32, kRequired}, {kFloat16, kRequired}, {kFloat16, kRequired}};
}

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_PACKED_H
