// From the C API's description of an output to the epilogue of a launch, checked.
// SPDX-License-Identifier: Apache-2.0
#include "output_request.h"

#include "decode_plan.h"

namespace toolkit::cuda {
namespace {

constexpr int64_t kMost = 0x7fffffff;

NumberType number_type(int32_t onnx) {
  switch (onnx) {
    case 1:
      return NumberType::kFloat32;
    case 3:
      return NumberType::kInt8;
    case 5:
      return NumberType::kInt16;
    case 6:
      return NumberType::kInt32;
    case 10:
      return NumberType::kFloat16;
    case 16:
      return NumberType::kBfloat16;
    default:
      return NumberType::kNone;
  }
}

bool is_float(NumberType type) {
  return type == NumberType::kFloat32 || type == NumberType::kFloat16 || type == NumberType::kBfloat16;
}

bool in_range(int64_t value) { return value >= 1 && value <= kMost; }

tk_status add_scales(const tk_output& o, Epilogue* e) {
  e->scale_type = number_type(o.scale_type);
  e->zero_type = number_type(o.zero_type);
  if (!o.scales || !is_float(e->scale_type) || is_float(e->zero_type)) return TK_ERR_ARGUMENT;
  if ((e->zero_type == NumberType::kNone) != (o.zero_points == nullptr)) return TK_ERR_ARGUMENT;
  if (!in_range(o.num_scales) || !in_range(o.inner)) return TK_ERR_ARGUMENT;
  e->scales = o.scales;
  e->zeros = o.zero_points;
  e->inner = divider_of(o.inner);
  e->count = divider_of(o.num_scales);
  e->map = o.num_scales == 1 ? ScaleMap::kOne : ScaleMap::kAxis;
  if (o.block == 0) return TK_OK;
  if (!in_range(o.block) || !in_range(o.length) || o.length > kMost / o.inner) return TK_ERR_ARGUMENT;
  const int64_t blocks = (o.length - 1) / o.block + 1, outer = (o.num_values - 1) / (o.length * o.inner) + 1;
  if (blocks * o.inner > o.num_scales / outer) return TK_ERR_ARGUMENT;
  e->map = ScaleMap::kBlocks;
  e->length = divider_of(o.length);
  e->block = divider_of(o.block);
  e->blocks = static_cast<uint32_t>(blocks);
  return TK_OK;
}

}  // namespace

int64_t value_bytes(const tk_output& output, bool wide) {
  switch (static_cast<OutKind>(output.kind)) {
    case OutKind::kSymbols:
      return wide ? 2 : 1;
    case OutKind::kFloat16:
    case OutKind::kBfloat16:
    case OutKind::kLookup16:
      return 2;
    case OutKind::kFloat32:
    case OutKind::kLookup32:
      return 4;
    case OutKind::kNothing:  // not to be asked for
      break;
  }
  return 0;
}

tk_status make_epilogue(const tk_output& o, Epilogue* e) {
  *e = Epilogue{};
  if (!value_bytes(o, false) || o.num_values < 0 || o.num_values > kMost) return TK_ERR_ARGUMENT;
  e->kind = static_cast<OutKind>(o.kind);
  if (e->kind == OutKind::kSymbols) return TK_OK;
  if (e->kind == OutKind::kLookup16 || e->kind == OutKind::kLookup32) {
    if (!o.codebook || o.num_entries < 1) return TK_ERR_ARGUMENT;
    // No symbol can reach the codebook from farther away; nor can a sum of the two overflow.
    if (o.offset < -32768 || o.offset > o.num_entries + 32768) return TK_ERR_STREAM;
    e->codebook = o.codebook;
    e->num_entries = o.num_entries;
    e->offset = o.offset;
    return TK_OK;
  }
  return add_scales(o, e);
}

}  // namespace toolkit::cuda
