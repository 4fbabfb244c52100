// Reads decode chains. Operators have here the meaning that runtime/chain_operators.py gives them.
// SPDX-License-Identifier: Apache-2.0
#include "load_chains.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "blob_frame.h"
#include "half_float.h"

namespace toolkit::load {

using onnx::Id;
using onnx::integer_of;
using onnx::integers_of;
using onnx::Node;
using onnx::Tensor;
using onnx::Unknown;

namespace {

constexpr int kDeepest = 32;  // operators of a chain
constexpr std::string_view kDomain = "toolkit";

void require(bool condition) {
  if (!condition) throw Unknown();
}

Id input(const onnx::Graph& graph, const Node& node, uint32_t index) {
  return index < node.num_inputs ? graph.inputs_of(node)[index] : onnx::kNoName;
}

template <class T>
std::vector<T> elements(const Tensor& tensor) {
  std::vector<T> values(tensor.raw.size() / sizeof(T));
  std::memcpy(values.data(), tensor.raw.data(), values.size() * sizeof(T));
  return values;
}

std::vector<float> floats(const Tensor& tensor) {
  if (tensor.type == onnx::kFloat) return elements<float>(tensor);
  require(tensor.type == onnx::kFloat16);
  std::vector<float> values;
  for (const uint16_t half : elements<uint16_t>(tensor)) values.push_back(float_from_half(half));
  return values;
}

std::vector<int32_t> zeros(const Tensor& tensor) {
  std::vector<int32_t> values;
  if (tensor.type == onnx::kInt8)
    for (const int8_t zero : elements<int8_t>(tensor)) values.push_back(zero);
  else
    for (const int16_t zero : elements<int16_t>(tensor)) values.push_back(zero);
  return values;
}

Spread spread_of(const std::vector<int64_t>& dims, const std::vector<int64_t>& shape, int64_t axis, int64_t block) {
  const auto rank = static_cast<int64_t>(shape.size());
  if (block == 0 && dims.size() <= 1 && onnx::element_count(dims) == 1)
    return {onnx::element_count(shape), 0, 0, 0, false};
  require(axis >= -rank && axis < rank && block >= 0);
  const auto at = static_cast<std::ptrdiff_t>(axis < 0 ? axis + rank : axis);
  Spread spread;
  spread.length = shape[static_cast<size_t>(at)];
  spread.inner = onnx::element_count({shape.begin() + at + 1, shape.end()});
  if (block == 0) {
    require(dims == std::vector<int64_t>{spread.length});
    return spread;
  }
  std::vector<int64_t> wanted = shape;
  spread.blocks = wanted[static_cast<size_t>(at)] = (spread.length - 1) / block + 1;
  require(dims == wanted);
  spread.block = block;
  spread.repeats = spread.inner != 1 || spread.length % block != 0;
  return spread;
}

template <class T>
std::vector<T> spread_out(const std::vector<T>& values, const Spread& spread) {
  std::vector<T> all;
  const int64_t row = spread.inner, outer = static_cast<int64_t>(values.size()) / (spread.blocks * row);
  all.reserve(static_cast<size_t>(outer * spread.length * row));
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i < spread.length; ++i) {
      const auto from = values.begin() + (o * spread.blocks + i / spread.block) * row;
      all.insert(all.end(), from, from + row);
    }
  }
  return all;
}

// For a factor that differs along one axis only: how many neighbours share one of its values.
int64_t neighbours(const std::vector<int64_t>& factor, const std::vector<int64_t>& shape) {
  require(factor.size() <= shape.size());
  int64_t inner = onnx::element_count(shape);
  bool found = false;
  for (size_t i = 0; i < factor.size(); ++i) {
    if (factor[i] == 1) continue;
    const size_t axis = shape.size() - factor.size() + i;
    require(!found && factor[i] == shape[axis]);
    inner = onnx::element_count({shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end()});
    found = true;
  }
  return inner;
}

}  // namespace

Chains::Chains(const Cut& cut) : cut_(cut) {
  for (const Id id : cut.weights) {
    weights.push_back(weight_of(id, 0));
    Weight& weight = weights.back();
    weight.name = id;
    const Symbols& symbols = weight.symbols;
    if (weight.kind != Weight::kSymbols) continue;
    weight.dims = symbols.dims;
    weight.type = symbols.type;
    require(symbols.offset == 0 && (weight.type == onnx::kInt8 || weight.type == onnx::kInt16));
  }
}

void Chains::spread_scales() {
  for (Weight& weight : weights) {
    if (!weight.spread.repeats) continue;
    weight.scales = spread_out(weight.scales, weight.spread);
    weight.zero_points = spread_out(weight.zero_points, weight.spread);
    weight.spread.repeats = false;
  }
}

const Node* Chains::producer(Id id) const {
  const int64_t node = cut_.graph.values[id].node;
  return node < 0 ? nullptr : &cut_.graph.nodes[static_cast<size_t>(node)];
}

Tensor Chains::constant(Id id) const {
  const int64_t index = cut_.graph.values[id].initializer;
  require(index >= 0);
  return cut_.graph.tensor(cut_.graph.initializers[static_cast<size_t>(index)]);
}

std::vector<int64_t> Chains::shape(Id id) const {
  const Tensor tensor = constant(id);
  require(tensor.type == onnx::kInt64 && tensor.dims.size() == 1);
  return elements<int64_t>(tensor);
}

int64_t Chains::scalar(Id id, int32_t type) const {
  const Tensor tensor = constant(id);
  require(tensor.type == type && tensor.count() == 1);
  return type == onnx::kInt32 ? elements<int32_t>(tensor)[0] : elements<int64_t>(tensor)[0];
}

size_t Chains::blob_of(Id id, const Blob& kind) {
  const auto [at, is_new] = blob_ids_.emplace(id, blobs.size());
  if (is_new) {
    const Tensor tensor = constant(id);
    require(tensor.type == onnx::kUint16 && tensor.dims.size() == 1);
    blobs.push_back(kind);
    blobs.back().words = tensor.raw;
  }
  const Blob& blob = blobs[at->second];
  require(blob.is_stream == kind.is_stream && blob.coder == kind.coder && blob.is_wide == kind.is_wide);
  return at->second;
}

Symbols Chains::take_tensor(const Node& node, Id id) {
  const Node* const decode = producer(input(cut_.graph, node, 0));
  require(decode != nullptr && decode->domain == kDomain);
  Blob kind;
  kind.is_wide = decode->op_type == "DecodeWide16";
  require(kind.is_wide || decode->op_type == "DecodeWide");
  Source source;
  source.blob = blob_of(input(cut_.graph, *decode, 0), kind);
  source.lane = integer_of(node, "lane", -1);
  source.lanes = integer_of(node, "lanes", -1);
  source.steps = integer_of(node, "steps", -1);
  Symbols symbols;
  require(integers_of(node, "shape", &symbols.dims));
  onnx::element_count(symbols.dims);
  symbols.type = kind.is_wide ? onnx::kInt16 : onnx::kInt8;
  const auto [at, is_new] = source_ids_.emplace(id, sources.size());
  if (is_new) sources.push_back(source);
  symbols.source = at->second;
  return symbols;
}

Symbols Chains::stream_of(const Node& node, Id id) {
  Blob kind;
  kind.is_stream = true;
  kind.coder = node.op_type == "DecodeAdaptive" ? kCoderAdaptive : node.op_type == "DecodeHuffman" ? kCoderHuffman : 0;
  if (node.op_type == "DecodeFixed") kind.coder = kCoderFixed;
  require(kind.coder != 0);
  Source source;
  source.blob = blob_of(input(cut_.graph, node, 0), kind);
  const auto [at, is_new] = source_ids_.emplace(id, sources.size());
  if (is_new) sources.push_back(source);
  Symbols symbols;
  symbols.source = at->second;
  symbols.type = onnx::kInt16;
  symbols.is_whole = true;
  return symbols;
}

Symbols Chains::symbols_of(Id id, int depth) {
  const Node* const node = producer(id);
  require(node != nullptr && depth < kDeepest && node->num_outputs == 1);
  if (node->domain == kDomain) {
    if (node->op_type == "TakeTensor") return take_tensor(*node, id);
    return node->op_type == "TakeRange" ? take_range(*node, depth) : stream_of(*node, id);
  }
  require(node->domain.empty());
  if (node->op_type == "Identity") return symbols_of(input(cut_.graph, *node, 0), depth + 1);
  if (node->op_type == "Cast") return cast(*node, depth);
  require(node->op_type == "Add");
  return shifted(*node, depth);
}

// Symbols with a shape.
Symbols Chains::taken(Id id, int depth) {
  Symbols symbols = symbols_of(id, depth);
  require(!symbols.is_whole);
  return symbols;
}

Symbols Chains::take_range(const Node& node, int depth) {
  Symbols symbols = symbols_of(input(cut_.graph, node, 0), depth + 1);
  require(symbols.type == onnx::kInt8 || symbols.type == onnx::kInt16);
  require(symbols.is_whole || (symbols.dims.size() == 1 && symbols.first == 0));
  const std::vector<int64_t> from = std::exchange(symbols.dims, {});
  symbols.first = integer_of(node, "first", -1);
  require(symbols.first >= 0 && integers_of(node, "shape", &symbols.dims));
  const int64_t count = onnx::element_count(symbols.dims);
  require(symbols.first <= INT32_MAX && (symbols.is_whole || symbols.first + count <= from[0]));
  symbols.is_whole = false;
  symbols.is_part = true;
  return symbols;
}

Symbols Chains::cast(const Node& node, int depth) {
  Symbols symbols = symbols_of(input(cut_.graph, node, 0), depth + 1);
  const auto to = static_cast<int32_t>(integer_of(node, "to", 0));
  require(symbols.type == onnx::kInt8 || symbols.type == onnx::kInt16 || symbols.type == to);
  require(to == onnx::kInt8 || to == onnx::kInt16 || to == onnx::kInt32 || to == onnx::kInt64 || to == onnx::kFloat);
  symbols.is_narrow = symbols.is_narrow || to == onnx::kInt8;
  symbols.type = to;
  return symbols;
}

Symbols Chains::shifted(const Node& node, int depth) {
  Id term = input(cut_.graph, node, 1), terms = input(cut_.graph, node, 0);
  if (producer(term) != nullptr) std::swap(term, terms);
  Symbols symbols = taken(terms, depth + 1);
  require(symbols.type == onnx::kInt32 || symbols.type == onnx::kInt64);
  require(constant(term).dims.size() <= symbols.dims.size());
  const int64_t added = scalar(term, symbols.type);
  constexpr int64_t most = int64_t{1} << 30;
  require(added <= most && added >= -most && symbols.offset == 0);
  symbols.offset = added;
  return symbols;
}

Weight Chains::weight_of(Id id, int depth) {
  const Node* const node = producer(id);
  require(node != nullptr && depth < kDeepest && node->num_outputs == 1);
  if (node->op_type == "JoinFloat" || node->op_type == "JoinHalf") return joined(*node, depth);
  if (node->domain.empty()) {
    const Id first = input(cut_.graph, *node, 0);
    if (node->op_type == "DequantizeLinear") return dequantized(*node, depth);
    if (node->op_type == "Mul") return multiplied(*node, depth);
    if (node->op_type == "Gather") return looked_up(*node, depth);
    if (node->op_type == "Identity") return weight_of(first, depth + 1);
    if (node->op_type == "Reshape") {
      Weight weight = weight_of(first, depth + 1);
      std::vector<int64_t>& dims = weight.kind == Weight::kSymbols ? weight.symbols.dims : weight.dims;
      const int64_t count = onnx::element_count(dims);
      dims = shape(input(cut_.graph, *node, 1));
      require(count == onnx::element_count(dims));
      return weight;
    }
    const auto to = node->op_type == "Cast" ? static_cast<int32_t>(integer_of(*node, "to", 0)) : 0;
    if (to == onnx::kFloat16 || to == onnx::kBfloat16) {
      Weight weight = weight_of(first, depth + 1);
      require(weight.kind == Weight::kDequantized && weight.type == onnx::kFloat);
      weight.type = to;
      return weight;
    }
  }
  Weight weight;
  weight.symbols = taken(id, depth);
  return weight;
}

Weight Chains::dequantized(const Node& node, int depth) {
  Weight weight;
  weight.kind = Weight::kDequantized;
  weight.symbols = taken(input(cut_.graph, node, 0), depth + 1);
  const Symbols& symbols = weight.symbols;
  require(symbols.type == onnx::kInt8 || symbols.type == onnx::kInt16);
  require(integer_of(node, "output_dtype", 0) == 0);
  const Tensor scale = constant(input(cut_.graph, node, 1));
  const Spread spread =
      spread_of(scale.dims, symbols.dims, integer_of(node, "axis", 1), integer_of(node, "block_size", 0));
  weight.scales = floats(scale);
  if (const Id zero_id = input(cut_.graph, node, 2); zero_id != onnx::kNoName) {
    const Tensor zero = constant(zero_id);
    require(zero.type == symbols.type && zero.dims == scale.dims);
    weight.zero_points = zeros(zero);
  }
  weight.spread = spread;
  weight.inner = spread.repeats ? 1 : spread.block ? spread.block : spread.inner;
  weight.type = scale.type;
  weight.dims = symbols.dims;
  return weight;
}

Weight Chains::multiplied(const Node& node, int depth) {
  Id factor_id = input(cut_.graph, node, 1), symbols_id = input(cut_.graph, node, 0);
  if (producer(factor_id) != nullptr) std::swap(factor_id, symbols_id);
  Weight weight;
  weight.kind = Weight::kDequantized;
  weight.symbols = taken(symbols_id, depth + 1);
  const Symbols& symbols = weight.symbols;
  const Tensor factor = constant(factor_id);
  require(symbols.type == onnx::kFloat && factor.type == onnx::kFloat && symbols.offset == 0);
  weight.inner = neighbours(factor.dims, symbols.dims);
  weight.scales = floats(factor);
  weight.type = onnx::kFloat;
  weight.dims = symbols.dims;
  return weight;
}

Weight Chains::looked_up(const Node& node, int depth) {
  Weight weight;
  weight.kind = Weight::kLookedUp;
  const Tensor codebook = constant(input(cut_.graph, node, 0));
  require(codebook.dims.size() == 1 && (codebook.type == onnx::kFloat || codebook.type == onnx::kFloat16));
  require(integer_of(node, "axis", 0) == 0);
  weight.symbols = taken(input(cut_.graph, node, 1), depth + 1);
  require(weight.symbols.type == onnx::kInt32 || weight.symbols.type == onnx::kInt64);
  weight.codebook.assign(codebook.raw.begin(), codebook.raw.end());
  weight.type = codebook.type;
  weight.dims = weight.symbols.dims;
  return weight;
}

Weight Chains::joined(const Node& node, int depth) {
  Weight weight;
  weight.kind = Weight::kJoined;
  weight.type = static_cast<int32_t>(integer_of(node, "to", 0));
  const bool half = weight.type == onnx::kFloat16 || weight.type == onnx::kBfloat16;
  require(half || weight.type == onnx::kFloat);
  require(node.op_type == (half ? "JoinHalf" : "JoinFloat") && node.num_inputs == (half ? 2u : 4u));
  weight.symbols = taken(input(cut_.graph, node, 0), depth + 1);
  require(weight.symbols.type == onnx::kInt8);
  weight.dims = weight.symbols.dims;
  for (uint32_t i = 1; i < node.num_inputs; ++i) {
    const Tensor plane = constant(input(cut_.graph, node, i));
    require(plane.type == onnx::kUint8 && plane.dims == weight.dims);
    weight.planes.push_back(plane.raw);
  }
  return weight;
}

}  // namespace toolkit::load
