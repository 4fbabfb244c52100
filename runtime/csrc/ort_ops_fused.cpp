// The ops DecodeTensor, DecodeDequantize and DecodeLookup: one tensor of a wide blob, as symbols or straight to
// floating point. SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "half_float.h"
#include "ort_fused.h"

namespace toolkit::ort {
namespace {

// blob uint16 [n] -> symbols int8 or int16 [shape], the first of tensor number `tensor`
template <ElementType kSymbol>
class DecodeTensor {
 public:
  DecodeTensor(const KernelInfo& info, int threads) : source_(info), threads_(threads) {
    if (source_.blob.constant() != nullptr) check_width(*source_.blob.constant());
  }

  void compute(KernelContext& context) const {
    const ReaderPointer reader = source_.open(context);
    check_width(*reader);
    const tk_wide_tensor_info info = reader->tensor(source_.tensor);
    const int64_t symbol_bytes = kSymbol == kInt16 ? 2 : 1, size = info.a * info.b * info.c * symbol_bytes;
    void* const out = context.output(source_.shape);
    const bool whole = source_.count * symbol_bytes == size;
    std::vector<char> padded(whole ? 0 : static_cast<size_t>(size));
    void* const to = whole ? out : padded.data();
    check_codec(tk_wide_decode_tensor(reader->get(), source_.tensor, to, size, threads_, TK_ISA_AUTO), source_.name());
    if (!whole) std::copy_n(padded.data(), source_.count * symbol_bytes, static_cast<char*>(out));
  }

  static void infer(ShapeContext& shapes) { shapes.set_output(kSymbol, shapes.integers("shape")); }

 private:
  static void check_width(const Reader& reader) {
    if ((reader.info().wide != 0) != (kSymbol == kInt16))
      throw std::runtime_error(kSymbol == kInt16 ? "the blob holds int8 symbols: use DecodeTensor"
                                                 : "the blob holds int16 symbols: use DecodeTensor16");
  }

  TensorOfBlob source_;
  int threads_;
};

std::vector<float> floats_of(const TensorView& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.count));
  if (tensor.type == kFloat32)
    std::copy_n(tensor.as<float>(), values.size(), values.begin());
  else
    std::transform(tensor.as<uint16_t>(), tensor.as<uint16_t>() + tensor.count, values.begin(), float_from_half);
  return values;
}

std::vector<int32_t> integers_of(const TensorView& tensor) {
  std::vector<int32_t> values(static_cast<size_t>(tensor.count));
  if (tensor.type == kInt8)
    std::copy_n(tensor.as<int8_t>(), values.size(), values.begin());
  else if (tensor.type == kInt16)
    std::copy_n(tensor.as<int16_t>(), values.size(), values.begin());
  else
    throw std::runtime_error("zero_point must be int8 or int16");
  return values;
}

// blob uint16 [n], scale float32 or float16 [, zero_point int8 or int16 of scale's shape] -> scale's type, [shape].
// Attributes tensor, shape, axis (1) and block_size (0) mean what they mean in DequantizeLinear.
class DecodeDequantize {
 public:
  DecodeDequantize(const KernelInfo& info, int threads)
      : source_(info), axis_(info.integer("axis", 1)), block_(info.integer("block_size", 0)), threads_(threads) {
    if (block_ < 0) throw std::runtime_error("block_size is negative");
  }

  void compute(KernelContext& context) const {
    const ReaderPointer reader = source_.open(context);
    const TensorView scale = context.input(1);
    const TensorView zero_point = context.input(2);
    const int64_t num_bytes = source_.count * float_bytes(scale.type);
    if (zero_point && zero_point.shape != scale.shape) throw std::runtime_error("zero_point and scale differ in shape");
    std::vector<float> scales = floats_of(scale);
    std::vector<int32_t> zeros = zero_point ? integers_of(zero_point) : std::vector<int32_t>();
    const int64_t inner = spread(scale.shape, scales, zeros);
    tk_dequantize how{};
    how.scales = scales.data();
    how.zero_points = zeros.empty() ? nullptr : zeros.data();
    how.num_scales = static_cast<int64_t>(scales.size());
    how.inner = inner;
    how.num_values = source_.count;
    how.out_type = scale.type;
    void* out = context.output(source_.shape);
    check_codec(tk_wide_decode_dequantize(reader->get(), source_.tensor, &how, out, num_bytes, threads_, TK_ISA_AUTO),
                source_.name());
  }

  static void infer(ShapeContext& shapes) { infer_floats(shapes); }

 private:
  // Brings the scales into the codec's form, where scale j belongs to the flat indices i with (i / inner) % count = j,
  // and returns inner. Blocks that do not follow the flat order are spread to one scale per index along the axis.
  int64_t spread(const Shape& scale_shape, std::vector<float>& scales, std::vector<int32_t>& zeros) const {
    const auto count = static_cast<int64_t>(scales.size());
    const auto [inner, length, block] = place_scales(source_.shape, scale_shape, count, axis_, block_);
    if (block == 0) return inner;
    const int64_t blocks = (length - 1) / block + 1;
    if (inner == 1 && length % block_ == 0) return block_;
    scales = expand(scales, length, blocks, inner);
    if (!zeros.empty()) zeros = expand(zeros, length, blocks, inner);
    return 1;
  }

  template <typename T>
  std::vector<T> expand(const std::vector<T>& values, int64_t length, int64_t blocks, int64_t inner) const {
    std::vector<T> expanded;
    expanded.reserve(static_cast<size_t>(source_.count));
    for (int64_t outer = 0; outer < source_.count / (length * inner); ++outer) {
      for (int64_t index = 0; index < length; ++index) {
        const auto row = values.begin() + (outer * blocks + index / block_) * inner;
        expanded.insert(expanded.end(), row, row + inner);
      }
    }
    return expanded;
  }

  TensorOfBlob source_;
  int64_t axis_;
  int64_t block_;
  int threads_;
};

// blob uint16 [n], codebook float32 or float16 [entries] -> codebook[symbol + offset], codebook's type, [shape].
class DecodeLookup {
 public:
  DecodeLookup(const KernelInfo& info, int threads)
      : source_(info), offset_(info.integer("offset", 0)), threads_(threads) {}

  void compute(KernelContext& context) const {
    const ReaderPointer reader = source_.open(context);
    const TensorView codebook = context.input(1);
    if (codebook.shape.size() != 1) throw std::runtime_error("codebook must have one dimension");
    const int64_t size = float_bytes(codebook.type);
    void* out = context.output(source_.shape);
    check_codec(tk_wide_decode_lookup(reader->get(), source_.tensor, codebook.data, codebook.count, offset_,
                                      static_cast<int32_t>(size), source_.count, out, source_.count * size, threads_,
                                      TK_ISA_AUTO),
                source_.name());
  }

  static void infer(ShapeContext& shapes) { infer_floats(shapes); }

 private:
  TensorOfBlob source_;
  int64_t offset_;
  int threads_;
};

}  // namespace

void add_fused_ops(OpList& ops, int threads) {
  ops.push_back(make_op<DecodeTensor<kInt8>>({"DecodeTensor", {{kUint16, kRequired}}, kInt8}, threads));
  ops.push_back(make_op<DecodeTensor<kInt16>>({"DecodeTensor16", {{kUint16, kRequired}}, kInt16}, threads));
  ops.push_back(make_op<DecodeDequantize>(
      {"DecodeDequantize", {{kUint16, kRequired}, {kUndefined, kRequired}, {kUndefined, kOptional}}, kUndefined},
      threads));
  ops.push_back(
      make_op<DecodeLookup>({"DecodeLookup", {{kUint16, kRequired}, {kUndefined, kRequired}}, kUndefined}, threads));
}

}  // namespace toolkit::ort
