// Weights that kernels of the CPU provider decode to floating point.
// SPDX-License-Identifier: Apache-2.0
#include "ort_weights.h"

#include <algorithm>

#include "half_float.h"

namespace toolkit::ort {
namespace {

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

// One value for each of a tensor's `count`, from one for each block of its axis.
template <typename T>
std::vector<T> expand(const std::vector<T>& values, int64_t count, const ScalePlace& place) {
  std::vector<T> expanded;
  expanded.reserve(static_cast<size_t>(count));
  const int64_t blocks = (place.length - 1) / place.block + 1;
  for (int64_t outer = 0; outer < count / (place.length * place.inner); ++outer) {
    for (int64_t index = 0; index < place.length; ++index) {
      const auto row = values.begin() + (outer * blocks + index / place.block) * place.inner;
      expanded.insert(expanded.end(), row, row + place.inner);
    }
  }
  return expanded;
}

}  // namespace

void DequantizedWeight::write(const KernelContext& context, void* out) const {
  const ReaderPointer reader = of_.open(context);
  const auto [scale, zero_point] = tables(context);
  std::vector<float> scales = floats_of(scale);
  std::vector<int32_t> zeros = zero_point ? integers_of(zero_point) : std::vector<int32_t>();
  // The codec's form: scale j belongs to the flat indices i with (i / inner) % count = j. Blocks that do not follow the
  // flat order are spread to one scale for each value.
  const ScalePlace place = this->place({scale, zero_point});
  int64_t inner = place.inner;
  if (place.block > 0) {
    if (place.inner == 1 && place.length % place.block == 0) {
      inner = place.block;
    } else {
      scales = expand(scales, of_.count, place);
      if (!zeros.empty()) zeros = expand(zeros, of_.count, place);
      inner = 1;
    }
  }
  tk_dequantize how{};
  how.scales = scales.data();
  how.zero_points = zeros.empty() ? nullptr : zeros.data();
  how.num_scales = static_cast<int64_t>(scales.size());
  how.inner = inner;
  how.num_values = of_.count;
  how.out_type = scale.type;
  check_codec(tk_wide_decode_dequantize(reader->get(), of_.tensor, &how, out, of_.count * float_bytes(scale.type),
                                        threads_, TK_ISA_AUTO),
              of_.name());
}

void LookedUpWeight::write(const KernelContext& context, void* out) const {
  const ReaderPointer reader = of_.open(context);
  const TensorView codebook = tables(context).table;
  const int64_t size = float_bytes(codebook.type);
  check_codec(
      tk_wide_decode_lookup(reader->get(), of_.tensor, codebook.data, codebook.count, offset_,
                            static_cast<int32_t>(size), of_.count, out, of_.count * size, threads_, TK_ISA_AUTO),
      of_.name());
}

}  // namespace toolkit::ort
