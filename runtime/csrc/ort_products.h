// Ops that decode a weight and run the provider's own product with it: DecodeMatMul, DecodeLeftMatMul (the weight is
// the product's first factor), DecodeGemm, DecodeConv, and with `Lookup` behind the name those with weights from a
// codebook. SPDX-License-Identifier: Apache-2.0
//
// ConvPacked and ConvPackedCodebook are the same with a packed weight.
//
// Inputs: x, then those of DecodeDequantize or DecodeLookup, or the packed weight's, then the bias of Gemm or Conv,
// which may be left out. Attributes: those of the decoding op and those of the operator. The weight lives from its
// decoding to the end of the product, in scratch memory of ONNX Runtime's allocator.
#ifndef TOOLKIT_ORT_PRODUCTS_H
#define TOOLKIT_ORT_PRODUCTS_H

#include "ort_fused.h"
#include "ort_provider_op.h"

namespace toolkit::ort {

// What an operator makes of shapes, of which a dimension may be -1, unknown. Throws where they do not fit. A provider's
// operator writes to the output that it is given without a look at its shape, so this must be its own rule.
struct ConvGeometry {
  Shape strides, pads, dilations;  // empty for the defaults
  std::string auto_pad;
  int64_t group = 1;
};
Shape matmul_shape(const Shape& x, const Shape& weight);
Shape left_matmul_shape(const Shape& x, const Shape& weight);
Shape gemm_shape(const Shape& x, const Shape& weight, bool turn_x, bool turn_weight);
Shape conv_shape(const Shape& x, const Shape& weight, const ConvGeometry& geometry);

// A form says which operator it is, reads its attributes from a node's KernelInfo or ShapeContext, and knows its
// shapes.
class MatMulForm {
 public:
  static constexpr const char* kName = "MatMul";
  static constexpr int kVersion = 13;
  static constexpr bool kBias = false, kWeightFirst = false;

  template <class Node>
  explicit MatMulForm(const Node& /*node*/) {}
  static OpAttributes attributes(const KernelInfo& /*info*/) { return {}; }
  Shape shape(const Shape& x, const Shape& weight) const { return matmul_shape(x, weight); }
  // The dimension of x that an output's dimension is; -1 for another.
  static int origin(size_t dimension, size_t rank) { return dimension + 1 < rank ? static_cast<int>(dimension) : -1; }
};

class LeftMatMulForm {
 public:
  static constexpr const char* kName = "MatMul";
  static constexpr int kVersion = 13;
  static constexpr bool kBias = false, kWeightFirst = true;

  template <class Node>
  explicit LeftMatMulForm(const Node& /*node*/) {}
  static OpAttributes attributes(const KernelInfo& /*info*/) { return {}; }
  Shape shape(const Shape& x, const Shape& weight) const { return left_matmul_shape(x, weight); }
  static int origin(size_t dimension, size_t rank) {
    return rank > 1 && dimension + 2 != rank ? static_cast<int>(dimension) : -1;
  }
};

class GemmForm {
 public:
  static constexpr const char* kName = "Gemm";
  static constexpr int kVersion = 13;
  static constexpr bool kBias = true, kWeightFirst = false;

  template <class Node>
  explicit GemmForm(const Node& node)
      : turn_x_(node.integer("transA", 0) != 0), turn_weight_(node.integer("transB", 0) != 0) {}
  OpAttributes attributes(const KernelInfo& info) const {
    OpAttributes attributes;
    attributes.integer("transA", turn_x_ ? 1 : 0);
    attributes.integer("transB", turn_weight_ ? 1 : 0);
    attributes.real("alpha", info.real("alpha", 1));
    attributes.real("beta", info.real("beta", 1));
    return attributes;
  }
  Shape shape(const Shape& x, const Shape& weight) const { return gemm_shape(x, weight, turn_x_, turn_weight_); }
  int origin(size_t dimension, size_t /*rank*/) const { return dimension == 0 ? (turn_x_ ? 1 : 0) : -1; }

 private:
  bool turn_x_, turn_weight_;
};

class ConvForm {
 public:
  static constexpr const char* kName = "Conv";
  static constexpr int kVersion = 11;
  static constexpr bool kBias = true, kWeightFirst = false;

  template <class Node>
  explicit ConvForm(const Node& node) {
    geometry_.strides = node.integers_or_none("strides");
    geometry_.pads = node.integers_or_none("pads");
    geometry_.dilations = node.integers_or_none("dilations");
    geometry_.auto_pad = node.text("auto_pad");
    geometry_.group = node.integer("group", 1);
  }
  OpAttributes attributes(const KernelInfo& /*info*/) const {
    OpAttributes attributes;
    attributes.integer("group", geometry_.group);
    if (!geometry_.auto_pad.empty()) attributes.text("auto_pad", geometry_.auto_pad);
    if (!geometry_.strides.empty()) attributes.integers("strides", geometry_.strides);
    if (!geometry_.pads.empty()) attributes.integers("pads", geometry_.pads);
    if (!geometry_.dilations.empty()) attributes.integers("dilations", geometry_.dilations);
    return attributes;
  }
  Shape shape(const Shape& x, const Shape& weight) const { return conv_shape(x, weight, geometry_); }
  static int origin(size_t dimension, size_t /*rank*/) { return dimension == 0 ? 0 : -1; }

 private:
  ConvGeometry geometry_;
};

// Scratch is where a provider's weights lie while they are used: Scratch(const KernelInfo&), and with(context, weight,
// type, use), which decodes the weight and calls use(const OrtValue*).
template <class Form, class Weight, class Scratch>
class DecodeAndRun {
 public:
  DecodeAndRun(const KernelInfo& info, int threads)
      : form_(info),
        weight_(info, 1, threads),
        scratch_(info, weight_),
        has_bias_(Form::kBias && info.input_type(kBiasInput) != kUndefined),
        type_(info.input_type(0)),
        op_(info, Form::kName, Form::kVersion, type_, form_.attributes(info), has_bias_ ? 3 : 2) {}

  void compute(KernelContext& context) const {
    const TensorView x = context.input(0);
    weight_.check(context);
    if (x.type != type_ || weight_.type(context) != type_)
      throw std::runtime_error("x has element type " + std::to_string(x.type) + ", the weight " +
                               std::to_string(weight_.type(context)));
    std::vector<const OrtValue*> inputs{x.value, x.value};
    if (has_bias_) inputs.push_back(context.input(kBiasInput).value);
    const Shape shape = form_.shape(x.shape, weight_.shape());
    OrtValue* const out = context.output_value(shape);
    if (element_count(shape) == 0) return;
    scratch_.with(context, weight_, type_, [&](const OrtValue* weight) {
      inputs[Form::kWeightFirst ? 0 : 1] = weight;
      op_.run(context, inputs, out);
    });
  }

  static void infer(ShapeContext& shapes) {
    const ElementType type = shapes.input_type(0);
    float_bytes(type);
    const Form form(shapes);
    const Shape shape = form.shape(shapes.input_shape(0), shapes.integers("shape"));
    std::vector<int> origins;
    for (size_t i = 0; i < shape.size(); ++i) origins.push_back(form.origin(i, shape.size()));
    shapes.set_output(type, shape, origins);
  }

  static std::vector<std::pair<ElementType, Characteristic>> inputs() {
    std::vector<std::pair<ElementType, Characteristic>> all{
        {kUndefined, kRequired}, {Weight::kStored, kRequired}, {kUndefined, kRequired}};
    all.resize(1 + Weight::kInputs + (Form::kBias ? 1 : 0), {kUndefined, kOptional});
    return all;
  }

 private:
  static constexpr size_t kBiasInput = 1 + Weight::kInputs;

  Form form_;
  Weight weight_;
  Scratch scratch_;
  bool has_bias_;
  ElementType type_;
  ProviderOp op_;
};

// Adds an op for a provider. On CUDA a blob stays in the host's memory.
template <class Form, class Weight, class Scratch>
void add_product(OpList& ops, const char* name, int threads, Provider provider) {
  using Op = DecodeAndRun<Form, Weight, Scratch>;
  const bool on_host = provider == Provider::kCuda && Weight::kStored == kUint16;
  ops.push_back(make_op<Op>(Signature{name, Op::inputs(), kUndefined, provider, on_host ? 1 : -1}, threads));
}

// All ops with weights of blobs.
template <class Dequantized, class LookedUp, class Scratch>
void add_products(OpList& ops, int threads, Provider provider) {
  const auto each = [&](auto* form, const char* name, const char* lookup_name) {
    using Form = std::remove_pointer_t<decltype(form)>;
    add_product<Form, Dequantized, Scratch>(ops, name, threads, provider);
    add_product<Form, LookedUp, Scratch>(ops, lookup_name, threads, provider);
  };
  each(static_cast<MatMulForm*>(nullptr), "DecodeMatMul", "DecodeMatMulLookup");
  each(static_cast<LeftMatMulForm*>(nullptr), "DecodeLeftMatMul", "DecodeLeftMatMulLookup");
  each(static_cast<GemmForm*>(nullptr), "DecodeGemm", "DecodeGemmLookup");
  each(static_cast<ConvForm*>(nullptr), "DecodeConv", "DecodeConvLookup");
}

// All ops with packed weights that the provider's own operator is run with.
template <class Uniform, class Codebook, class Scratch>
void add_packed_products(OpList& ops, int threads, Provider provider) {
  add_product<ConvForm, Uniform, Scratch>(ops, "ConvPacked", threads, provider);
  add_product<ConvForm, Codebook, Scratch>(ops, "ConvPackedCodebook", threads, provider);
}

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_PRODUCTS_H
