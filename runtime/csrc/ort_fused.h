// What the ops that decode one tensor of a wide blob share, on every provider.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_FUSED_H
#define TOOLKIT_ORT_FUSED_H

#include "ort_reader.h"

namespace toolkit::ort {

// The blob, which tensor of it, and the shape it gets.
class TensorOfBlob {
 public:
  explicit TensorOfBlob(const KernelInfo& info, size_t blob_input = 0)
      : blob(info, blob_input),
        tensor(info.integer("tensor")),
        shape(info.integers("shape")),
        count(element_count(shape)) {
    if (blob.constant() != nullptr) check(*blob.constant());
  }

  ReaderPointer open(const KernelContext& context) const {
    ReaderPointer reader = blob.open(context);
    check(*reader);
    return reader;
  }

  std::string name() const { return "decoding tensor " + std::to_string(tensor); }

  BlobInput blob;
  int64_t tensor;
  Shape shape;
  int64_t count;

 private:
  void check(const Reader& reader) const {
    const tk_wide_tensor_info info = reader.tensor(tensor);
    const int64_t available = info.a * info.b * info.c;
    if (count < 1 || count > available)
      throw std::runtime_error("the shape has " + std::to_string(count) + " elements, tensor " +
                               std::to_string(tensor) + " of the blob has " + std::to_string(available));
  }
};

// Bytes of an output value; throws on a type that the fused ops do not write.
inline int64_t float_bytes(ElementType type) {
  if (type == kFloat32) return 4;
  if (type == kFloat16) return 2;
  throw std::runtime_error("element type " + std::to_string(type) + ", expected float32 or float16");
}

// The output has the type of input 1, the scale or the codebook, and the shape of the attribute.
inline void infer_floats(ShapeContext& shapes) {
  const ElementType type = shapes.input_type(1);
  float_bytes(type);
  shapes.set_output(type, shapes.integers("shape"));
}

// The ops DecodeDequantize and DecodeLookup, by the weight that they decode:
// blob uint16 [n], scale float32 or float16 [, zero_point int8 or int16 of scale's shape] -> scale's type, [shape],
// where the attributes tensor, shape, axis (1) and block_size (0) mean what they mean in DequantizeLinear; and blob
// uint16 [n], codebook float32 or float16 [entries] -> codebook[symbol + offset], codebook's type, [shape].
//
// A weight class W has
//   kStored                                                element type of its first input
//   kInputs                                                inputs from the blob on
//   W(const KernelInfo&, size_t blob_input, int threads)   the blob is that input, what it is decoded by follows it
//   const Shape& shape() const
//   ElementType type(const KernelContext&) const           of its values
//   void check(const KernelContext&) const                 throws where the inputs of the run do not fit
//   void write(const KernelContext&, void* out) const      decodes it
template <class Weight>
class DecodeWeight {
 public:
  DecodeWeight(const KernelInfo& info, int threads) : weight_(info, 0, threads) {}

  void compute(KernelContext& context) const {
    weight_.check(context);
    weight_.write(context, context.output(weight_.shape()));
  }

  static void infer(ShapeContext& shapes) { infer_floats(shapes); }

 private:
  Weight weight_;
};

// How a scale of DecodeDequantize lies along the tensor: scale j of `count` belongs to the flat indices i with
// (i / inner) % count = j; where block > 0, blocks of the axis of this length have one scale each.
struct ScalePlace {
  int64_t inner = 1, length = 0, block = 0;
};

// Checks the scale's shape by the rules of DequantizeLinear.
inline ScalePlace place_scales(const Shape& shape, const Shape& scale_shape, int64_t scale_count, int64_t given_axis,
                               int64_t block) {
  if (block == 0 && scale_count == 1 && scale_shape.size() <= 1) return {};
  const auto rank = static_cast<int64_t>(shape.size());
  const int64_t axis = given_axis < 0 ? given_axis + rank : given_axis;
  if (axis < 0 || axis >= rank)
    throw std::runtime_error("axis " + std::to_string(given_axis) + " is not an axis of shape");
  const int64_t length = shape[static_cast<size_t>(axis)];
  const int64_t inner = element_count(Shape(shape.begin() + axis + 1, shape.end()));
  if (block == 0) {
    if (scale_shape != Shape{length}) throw std::runtime_error("scale must have one value per index of the axis");
    return {inner, length, 0};
  }
  Shape wanted = shape;
  wanted[static_cast<size_t>(axis)] = (length - 1) / block + 1;
  if (scale_shape != wanted) throw std::runtime_error("scale must have one value per block of the axis");
  return {inner, length, block};
}

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_FUSED_H
