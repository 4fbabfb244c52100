// The shell around the custom op ABI: attributes, inputs, outputs and errors.
// SPDX-License-Identifier: Apache-2.0
#include "ort_kernel.h"

#include <algorithm>
#include <atomic>

namespace toolkit::ort {
namespace {

std::atomic<const OrtApi*> g_api{nullptr};
std::atomic<const OrtApiBase*> g_base{nullptr};
std::atomic<uint64_t> g_next_symbol{0};  // of dimensions that have no name
constexpr size_t kMaxText = 64;          // characters of an attribute

struct InfoRelease {
  void operator()(OrtTensorTypeAndShapeInfo* info) const { ReleaseTensorTypeAndShape::call(api(), info); }
};
struct TypeRelease {
  void operator()(OrtTypeInfo* info) const { ReleaseTypeInfo::call(api(), info); }
};
using InfoPointer = std::unique_ptr<OrtTensorTypeAndShapeInfo, InfoRelease>;

// True on success; an error is released and only means "absent" to the caller.
bool succeeded(OrtStatus* status) {
  if (status == nullptr) return true;
  ReleaseStatus::call(api(), status);
  return false;
}

Shape dimensions(const OrtTensorTypeAndShapeInfo* info) {
  size_t rank = 0;
  check(GetDimensionsCount::call(api(), info, &rank));
  Shape shape(rank);
  if (rank > 0) check(GetDimensions::call(api(), info, shape.data(), rank));
  return shape;
}

}  // namespace

const OrtApi* api() { return g_api.load(std::memory_order_relaxed); }

void set_api(const OrtApi* table, const OrtApiBase* base) {
  g_api.store(table, std::memory_order_relaxed);
  g_base.store(base, std::memory_order_relaxed);
}

bool has_version(uint32_t version) { return g_base.load(std::memory_order_relaxed)->GetApi(version) != nullptr; }

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string text = GetErrorMessage::call(api(), status);
  ReleaseStatus::call(api(), status);
  throw std::runtime_error(text);
}

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(count, dimension, &count))
      throw std::runtime_error("a shape has a negative dimension or too many elements");
  }
  return count;
}

void ValueRelease::operator()(OrtValue* value) const { ReleaseValue::call(api(), value); }

ValuePointer view_of_memory(const OrtMemoryInfo* memory, void* data, const Shape& shape, ElementType type) {
  const int64_t bytes = element_count(shape) * (type == kFloat32 ? 4 : 2);
  OrtValue* made = nullptr;
  check(CreateTensorWithData::call(api(), memory, data, static_cast<size_t>(bytes), shape.data(), shape.size(),
                                   static_cast<int>(type), &made));
  return ValuePointer(made);
}

TensorView view_of(const OrtValue* value) {
  TensorView view;
  if (value == nullptr) return view;
  view.value = value;
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  check(GetTensorTypeAndShape::call(api(), value, &raw));
  const InfoPointer info(raw);
  int type = kUndefined;
  check(GetTensorElementType::call(api(), raw, &type));
  view.type = static_cast<ElementType>(type);
  view.shape = dimensions(raw);
  view.count = element_count(view.shape);
  void* data = nullptr;
  check(GetTensorMutableData::call(api(), const_cast<OrtValue*>(value), &data));
  view.data = data;
  return view;
}

std::string KernelInfo::node_name() const {
  size_t size = 0;
  succeeded(KernelInfoGetNodeName::call(api(), info_, nullptr, &size));
  if (size < 2) return "";
  std::string name(size, '\0');
  if (!succeeded(KernelInfoGetNodeName::call(api(), info_, name.data(), &size))) return "";
  name.resize(size - 1);
  return name;
}

int64_t KernelInfo::integer(const char* name) const {
  int64_t value = 0;
  if (!succeeded(KernelInfoGetInt64::call(api(), info_, name, &value)))
    throw std::runtime_error("attribute '" + std::string(name) + "' is missing or not an integer");
  return value;
}

int64_t KernelInfo::integer(const char* name, int64_t fallback) const {
  int64_t value = fallback;
  return succeeded(KernelInfoGetInt64::call(api(), info_, name, &value)) ? value : fallback;
}

Shape KernelInfo::integers(const char* name) const {
  size_t count = 0;
  Shape values;
  // An empty list may be reported as an error or as zero values; a missing attribute only as an error.
  bool present = succeeded(KernelInfoGetInt64Array::call(api(), info_, name, nullptr, &count));
  if (present && count > 0) {
    if (count > kMaxRank) throw std::runtime_error("attribute '" + std::string(name) + "' has too many values");
    values.resize(count);
    present = succeeded(KernelInfoGetInt64Array::call(api(), info_, name, values.data(), &count));
  }
  if (!present) throw std::runtime_error("attribute '" + std::string(name) + "' is missing or not a list of integers");
  return values;
}

Shape KernelInfo::integers_or_none(const char* name) const {
  size_t count = 0;
  if (!succeeded(KernelInfoGetInt64Array::call(api(), info_, name, nullptr, &count)) || count == 0) return {};
  return integers(name);
}

float KernelInfo::real(const char* name, float fallback) const {
  float value = fallback;
  return succeeded(KernelInfoGetFloat::call(api(), info_, name, &value)) ? value : fallback;
}

std::string KernelInfo::text(const char* name) const {
  size_t size = 0;
  if (!succeeded(KernelInfoGetString::call(api(), info_, name, nullptr, &size)) || size < 2) return "";
  std::string value(size, '\0');
  check(KernelInfoGetString::call(api(), info_, name, value.data(), &size));
  value.resize(size - 1);
  return value;
}

ElementType KernelInfo::input_type(size_t index) const {
  OrtTypeInfo* raw = nullptr;
  if (!succeeded(KernelInfoInputTypeInfo::call(api(), info_, index, &raw)) || raw == nullptr) return kUndefined;
  const std::unique_ptr<OrtTypeInfo, TypeRelease> info(raw);
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // part of info
  check(CastTypeInfoToTensorInfo::call(api(), raw, &tensor));
  int type = kUndefined;
  if (tensor != nullptr) check(GetTensorElementType::call(api(), tensor, &type));
  return static_cast<ElementType>(type);
}

TensorView KernelInfo::constant_input(size_t index) const {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  if (!succeeded(KernelInfoConstantInput::call(api(), info_, index, &is_constant, &value)) || is_constant == 0)
    return {};
  return view_of(value);
}

size_t KernelContext::input_count() const {
  size_t count = 0;
  check(KernelContextInputCount::call(api(), context_, &count));
  return count;
}

TensorView KernelContext::input(size_t index) const {
  if (index >= input_count()) return {};
  const OrtValue* value = nullptr;
  check(KernelContextGetInput::call(api(), context_, index, &value));
  return view_of(value);
}

OrtValue* KernelContext::output_value(const Shape& shape) const {
  OrtValue* value = nullptr;
  check(KernelContextGetOutput::call(api(), context_, 0, shape.data(), shape.size(), &value));
  return value;
}

void* KernelContext::output(const Shape& shape) const {
  void* data = nullptr;
  check(GetTensorMutableData::call(api(), output_value(shape), &data));
  return data;
}

void* KernelContext::stream() const {
  void* stream = nullptr;
  check(KernelContextComputeStream::call(api(), context_, &stream));
  return stream;
}

ElementType ShapeContext::input_type(size_t index) const {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(ShapeInferInputTypeShape::call(api(), context_, index, &info));
  int type = kUndefined;
  check(GetTensorElementType::call(api(), info, &type));
  return static_cast<ElementType>(type);  // the context owns the info
}

Shape ShapeContext::input_shape(size_t index) const {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(ShapeInferInputTypeShape::call(api(), context_, index, &info));
  return dimensions(info);
}

std::vector<std::string> ShapeContext::input_symbols(size_t index) const {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(ShapeInferInputTypeShape::call(api(), context_, index, &info));
  std::vector<const char*> names(dimensions(info).size(), "");
  if (!names.empty()) check(GetSymbolicDimensions::call(api(), info, names.data(), names.size()));
  return {names.begin(), names.end()};
}

const OrtOpAttr* ShapeContext::attribute(const char* name) const {
  const OrtOpAttr* attribute = nullptr;
  check(ShapeInferGetAttribute::call(api(), context_, name, &attribute));
  return attribute;
}

const OrtOpAttr* ShapeContext::attribute_or_none(const char* name) const {
  const OrtOpAttr* attribute = nullptr;
  return succeeded(ShapeInferGetAttribute::call(api(), context_, name, &attribute)) ? attribute : nullptr;
}

int64_t ShapeContext::integer(const char* name, int64_t fallback) const {
  return attribute_or_none(name) == nullptr ? fallback : integer(name);
}

Shape ShapeContext::integers_or_none(const char* name) const {
  return attribute_or_none(name) == nullptr ? Shape() : integers(name);
}

std::string ShapeContext::text(const char* name) const {
  const OrtOpAttr* const found = attribute_or_none(name);
  if (found == nullptr) return "";
  std::string value(kMaxText, '\0');
  size_t needed = 0;
  check(ReadOpAttr::call(api(), found, kAttributeString, value.data(), value.size(), &needed));
  value.resize(needed);
  while (!value.empty() && value.back() == '\0') value.pop_back();
  return value;
}

int64_t ShapeContext::integer(const char* name) const {
  int64_t value = 0;
  size_t needed = 0;
  check(ReadOpAttr::call(api(), attribute(name), kAttributeInt, &value, sizeof value, &needed));
  return value;
}

Shape ShapeContext::integers(const char* name) const {
  Shape values(kMaxRank);
  size_t needed = 0;
  check(ReadOpAttr::call(api(), attribute(name), kAttributeInts, values.data(), values.size() * sizeof(int64_t),
                         &needed));
  values.resize(needed / sizeof(int64_t));
  return values;
}

void ShapeContext::set_output(ElementType type, const Shape& shape) const { set_output(type, shape, {}); }

void ShapeContext::set_output(ElementType type, const Shape& shape, const std::vector<int>& origins) const {
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  check(CreateTensorTypeAndShape::call(api(), &raw));
  const InfoPointer info(raw);
  check(SetTensorElementType::call(api(), raw, type));
  check(SetDimensions::call(api(), raw, shape.data(), shape.size()));
  if (std::find(shape.begin(), shape.end(), -1) != shape.end()) {
    const std::vector<std::string> symbols = input_symbols(0);
    std::vector<std::string> names(shape.size());
    std::vector<const char*> pointers(shape.size(), "");
    for (size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] != -1) continue;
      if (i < origins.size() && origins[i] >= 0) names[i] = symbols[static_cast<size_t>(origins[i])];
      if (names[i].empty()) names[i] = "toolkit_" + std::to_string(g_next_symbol.fetch_add(1));
      pointers[i] = names[i].c_str();
    }
    check(SetSymbolicDimensions::call(api(), raw, pointers.data(), pointers.size()));
  }
  check(ShapeInferSetOutput::call(api(), context_, 0, raw));
}

}  // namespace toolkit::ort
