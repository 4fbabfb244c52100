// The shapes of products with decoded weights. SPDX-License-Identifier: Apache-2.0
#include "ort_products.h"

namespace toolkit::ort {
namespace {

std::string text_of(const Shape& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

[[noreturn]] void refuse(const char* name, const Shape& x, const Shape& weight) {
  throw std::runtime_error(std::string(name) + " of x " + text_of(x) + " and a weight " + text_of(weight));
}

bool differ(int64_t one, int64_t other) { return one >= 0 && other >= 0 && one != other; }

// `count` values, all of at least `least`.
Shape filled(const Shape& given, const char* name, size_t count, int64_t fallback, int64_t least) {
  if (given.empty()) return Shape(count, fallback);
  bool right = given.size() == count;
  for (const int64_t value : given) right = right && value >= least && value <= std::numeric_limits<int32_t>::max();
  if (!right) throw std::runtime_error("attribute '" + std::string(name) + "' is " + text_of(given));
  return given;
}

}  // namespace

Shape matmul_shape(const Shape& x, const Shape& weight) {
  if (x.empty() || weight.size() != 2 || differ(x.back(), weight[0])) refuse("a matrix product", x, weight);
  Shape shape = x;
  shape.back() = weight[1];
  return shape;
}

Shape left_matmul_shape(const Shape& x, const Shape& weight) {
  if (x.empty() || weight.size() != 2) refuse("a matrix product", x, weight);
  Shape shape = x;
  int64_t& inputs = shape[x.size() > 1 ? x.size() - 2 : 0];
  if (differ(inputs, weight[1])) refuse("a matrix product", x, weight);
  inputs = weight[0];
  return shape;
}

Shape gemm_shape(const Shape& x, const Shape& weight, bool turn_x, bool turn_weight) {
  if (x.size() != 2 || weight.size() != 2 || differ(x[turn_x ? 0 : 1], weight[turn_weight ? 1 : 0]))
    refuse("a matrix product", x, weight);
  return {x[turn_x ? 1 : 0], weight[turn_weight ? 0 : 1]};
}

Shape conv_shape(const Shape& x, const Shape& weight, const ConvGeometry& geometry) {
  const size_t rank = weight.size();
  if (rank < 3 || x.size() != rank || geometry.group < 1 || weight[0] % geometry.group != 0 ||
      differ(x[1], weight[1] * geometry.group))
    refuse("a convolution", x, weight);
  const std::string& pad = geometry.auto_pad;
  const bool same = pad == "SAME_UPPER" || pad == "SAME_LOWER";
  if (!same && pad != "VALID" && pad != "NOTSET" && !pad.empty())
    throw std::runtime_error("attribute 'auto_pad' is " + pad);
  const size_t axes = rank - 2;
  const Shape strides = filled(geometry.strides, "strides", axes, 1, 1);
  const Shape dilations = filled(geometry.dilations, "dilations", axes, 1, 1);
  Shape pads = filled(geometry.pads, "pads", 2 * axes, 0, 0);
  if (pad == "VALID") pads.assign(2 * axes, 0);
  Shape shape{x[0], weight[0]};
  for (size_t i = 0; i < axes; ++i) {
    const int64_t size = x[i + 2];
    if (same && dilations[i] != 1) throw std::runtime_error("dilations with auto_pad " + pad);
    if (size < 0) {
      shape.push_back(-1);
    } else if (same) {
      shape.push_back((size + strides[i] - 1) / strides[i]);
    } else {
      const int64_t room = size + pads[i] + pads[i + axes] - dilations[i] * (weight[i + 2] - 1) - 1;
      if (room < 0) refuse("a convolution", x, weight);
      shape.push_back(room / strides[i] + 1);
    }
  }
  return shape;
}

}  // namespace toolkit::ort
