// Weights that are decoded from a tensor of a blob, on every provider.
// SPDX-License-Identifier: Apache-2.0
#include "ort_blob_weights.h"

namespace toolkit::ort {

ScaledWeight::ScaledWeight(const KernelInfo& info, size_t blob_input)
    : WeightOfBlob(info, blob_input),
      axis_(info.integer("axis", 1)),
      block_(info.integer("block_size", 0)),
      has_zero_point_(info.input_type(blob_input + 2) != kUndefined) {
  if (block_ < 0) throw std::runtime_error("block_size is negative");
}

WeightTables ScaledWeight::tables(const KernelContext& context) const {
  return {context.input(blob_input_ + 1), has_zero_point_ ? context.input(blob_input_ + 2) : TensorView()};
}

WeightTables ScaledWeight::constant_tables(const KernelInfo& info) const {
  WeightTables tables{info.constant_input(blob_input_ + 1), {}};
  if (!has_zero_point_) return tables;
  tables.zero_point = info.constant_input(blob_input_ + 2);
  return tables.zero_point ? tables : WeightTables();
}

ScalePlace ScaledWeight::place(const WeightTables& tables) const {
  const TensorView &scale = tables.table, &zero_point = tables.zero_point;
  float_bytes(scale.type);
  const ScalePlace place = place_scales(of_.shape, scale.shape, scale.count, axis_, block_);
  if (!zero_point) return place;
  if (zero_point.shape != scale.shape) throw std::runtime_error("zero_point and scale differ in shape");
  if (zero_point.type != kInt8 && zero_point.type != kInt16)
    throw std::runtime_error("zero_point must be int8 or int16");
  return place;
}

tk_output ScaledWeight::output(const WeightTables& tables) const {
  const TensorView &scale = tables.table, &zero_point = tables.zero_point;
  const ScalePlace place = this->place(tables);
  tk_output output{};
  output.kind = output.scale_type = scale.type;
  output.scales = scale.data;
  output.zero_type = zero_point ? zero_point.type : kUndefined;
  output.zero_points = zero_point ? zero_point.data : nullptr;
  output.num_scales = scale.count;
  output.inner = place.inner;
  output.length = place.length;
  output.block = place.block;
  output.num_values = of_.count;
  return output;
}

CodebookWeight::CodebookWeight(const KernelInfo& info, size_t blob_input)
    : WeightOfBlob(info, blob_input), offset_(info.integer("offset", 0)) {}

WeightTables CodebookWeight::tables(const KernelContext& context) const { return {context.input(blob_input_ + 1), {}}; }

WeightTables CodebookWeight::constant_tables(const KernelInfo& info) const {
  return {info.constant_input(blob_input_ + 1), {}};
}

void CodebookWeight::check(const WeightTables& tables) const {
  float_bytes(tables.table.type);
  if (tables.table.shape.size() != 1) throw std::runtime_error("codebook must have one dimension");
}

tk_output CodebookWeight::output(const WeightTables& tables) const {
  const TensorView& codebook = tables.table;
  check(tables);
  tk_output output{};
  output.kind = float_bytes(codebook.type) == 4 ? 33 : 32;
  output.codebook = codebook.data;
  output.num_entries = codebook.count;
  output.offset = offset_;
  output.num_values = of_.count;
  return output;
}

}  // namespace toolkit::ort
