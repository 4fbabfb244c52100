// Finds the decoded weights of a model.
// SPDX-License-Identifier: Apache-2.0
#include "load_cut.h"

#include <algorithm>
#include <array>

namespace toolkit::load {

using onnx::Field;
using onnx::Fields;
using onnx::Id;
using onnx::kNoName;
using onnx::Node;
using onnx::Unknown;
using std::string_view;

namespace {

namespace number = onnx::number;

constexpr string_view kDomain = "toolkit";
constexpr std::array<string_view, 13> kLibraryOps = {
    "DecodeWide",   "DecodeWide16",   "DecodeTensor",  "DecodeTensor16", "DecodeDequantize",
    "DecodeLookup", "DecodeAdaptive", "DecodeHuffman", "DecodeFixed",    "JoinFloat",
    "JoinHalf",     "TakeRange",      "TakeTensor"};
constexpr std::array<string_view, 7> kRandomOps = {
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"};
constexpr std::array<string_view, 4> kCopiedDomains = {"", "ai.onnx.ml", "com.microsoft", kDomain};
constexpr int64_t kFirstOverridable = 4;  // IR version from which on a caller may override initializers

template <size_t N>
bool is_among(const std::array<string_view, N>& names, string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_pure(string_view domain) { return domain.empty() || domain == kDomain || domain == "com.microsoft"; }

string_view graph_of(string_view model) {
  string_view graph;
  bool found = false;
  Field field;
  for (Fields fields(model); fields.next(&field);) {
    if (field.number != number::kGraph) continue;
    if (found) throw Unknown();
    graph = field.text();
    found = true;
  }
  return graph;
}

}  // namespace

Cut::Cut(string_view bytes) : model(bytes), graph(graph_of(bytes)) {
  int64_t ir_version = 0;
  bool has_toolkit = false;
  std::vector<string_view> domains;  // of functions
  Field field;
  for (Fields fields(model); fields.next(&field);) {
    if (field.number == number::kIrVersion) ir_version = field.integer();
    if (field.number != number::kFunctions && field.number != number::kOpsetImport) continue;
    const bool is_function = field.number == number::kFunctions;
    string_view domain;
    Field part;
    for (Fields parts(field.text()); parts.next(&part);)
      if (part.number == (is_function ? number::kFunctionDomain : number::kImportDomain)) domain = part.text();
    if (domain == kDomain) {
      has_toolkit = has_toolkit || !is_function;
    } else if (is_function) {
      if (field.bytes.find(kDomain) != string_view::npos) throw Unknown();
      domains.push_back(domain);
    }
  }
  if (!has_toolkit) throw Unknown();
  mark(ir_version);
  take_weights(domains);
  drop_unused();
}

// What is constant, and what of it has an op of the toolkit upstream.
void Cut::mark(int64_t ir_version) {
  const std::vector<onnx::Value>& values = graph.values;
  std::vector<bool> is_constant(values.size());
  is_decoded.resize(values.size());
  keeps_node.resize(graph.nodes.size(), true);
  for (size_t i = 0; i < values.size(); ++i)
    is_constant[i] = values[i].initializer >= 0 && !(values[i].is_input && ir_version >= kFirstOverridable);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    const bool of_toolkit = node.domain == kDomain;
    if (node.has_graphs || (of_toolkit && !is_among(kLibraryOps, node.op_type))) throw Unknown();
    bool constant = is_pure(node.domain) && !is_among(kRandomOps, node.op_type);
    bool decoded = of_toolkit, has_inputs = false;
    for (uint32_t i = 0; i < node.num_inputs; ++i) {
      const Id id = graph.inputs_of(node)[i];
      if (id == kNoName) continue;
      has_inputs = true;
      constant = constant && is_constant[id];
      decoded = decoded || is_decoded[id];
    }
    constant = constant && (has_inputs || node.op_type == "Constant");
    if (!constant) {
      if (of_toolkit || node.op_type == "DequantizeLinear") throw Unknown();
      continue;
    }
    keeps_node[n] = !decoded;
    for (uint32_t i = 0; i < node.num_outputs; ++i) {
      const Id id = graph.outputs_of(node)[i];
      if (id == kNoName) continue;
      is_constant[id] = true;
      is_decoded[id] = decoded;
    }
  }
}

// The decoded values that the rest reads.
void Cut::take_weights(const std::vector<string_view>& domains) {
  std::vector<bool> taken(graph.values.size());
  for (const Id id : graph.outputs)
    if (is_decoded[id]) throw Unknown();
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    if (!keeps_node[n]) continue;
    const Node& node = graph.nodes[n];
    // The options of a session with custom ops cannot be copied.
    if (!is_among(kCopiedDomains, node.domain) &&
        std::find(domains.begin(), domains.end(), node.domain) == domains.end())
      throw Unknown();
    for (uint32_t i = 0; i < node.num_inputs; ++i) {
      const Id id = graph.inputs_of(node)[i];
      if (!is_decoded[id] || taken[id]) continue;
      taken[id] = true;
      weights.push_back(id);
    }
  }
  if (weights.empty()) throw Unknown();
}

// Takes away what nothing reads any more.
void Cut::drop_unused() {
  std::vector<int64_t> uses(graph.values.size());
  const auto count = [&](const Node& node, int64_t change) {
    for (uint32_t i = 0; i < node.num_inputs; ++i) uses[graph.inputs_of(node)[i]] += change;
  };
  for (const Id id : graph.outputs) ++uses[id];
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    if (keeps_node[n]) count(graph.nodes[n], 1);
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const Node& node = graph.nodes[n];
    if (!keeps_node[n] || !is_pure(node.domain)) continue;
    const Id* const made = graph.outputs_of(node);
    if (std::any_of(made, made + node.num_outputs, [&](Id id) { return id != kNoName && uses[id] > 0; })) continue;
    keeps_node[n] = false;
    count(node, -1);
  }
  keeps_initializer.resize(graph.initializers.size());
  for (size_t i = 0; i < graph.initializers.size(); ++i) {
    const Id id = graph.initializers[i].name;
    keeps_initializer[i] = uses[id] > 0 || graph.values[id].is_input;
  }
  weights.erase(std::remove_if(weights.begin(), weights.end(), [&](Id id) { return uses[id] == 0; }), weights.end());
}

bool Cut::keeps_external_data() const {
  for (size_t i = 0; i < graph.initializers.size(); ++i) {
    if (!keeps_initializer[i]) continue;
    Field field;
    for (Fields fields(graph.initializers[i].content); fields.next(&field);)
      if (field.number == number::kDataLocation && field.integer() != 0) return true;
  }
  return false;
}

void write_rest(const Cut& cut, const std::vector<std::string>& weights, std::string* rest) {
  const auto is_kept = [&](const onnx::Piece& piece) {
    switch (piece.kind) {
      case onnx::Piece::kNode:
        return static_cast<bool>(cut.keeps_node[static_cast<size_t>(piece.index)]);
      case onnx::Piece::kInitializer:
        return static_cast<bool>(cut.keeps_initializer[static_cast<size_t>(piece.index)]);
      case onnx::Piece::kValueInfo:
        return !cut.is_decoded[static_cast<size_t>(piece.index)];
      default:
        return true;
    }
  };
  size_t graph_bytes = 0;
  for (const onnx::Piece& piece : cut.graph.pieces)
    if (is_kept(piece)) graph_bytes += piece.whole.size();
  std::string head;  // of an initializer
  for (const std::string& weight : weights) {
    head.clear();
    onnx::put_length(number::kInitializer, weight.size(), &head);
    graph_bytes += head.size() + weight.size();
  }
  rest->clear();
  Field field;
  for (Fields fields(cut.model); fields.next(&field);) {
    if (field.number == number::kGraph) {
      rest->reserve(rest->size() + graph_bytes + 1024);
      onnx::put_length(number::kGraph, graph_bytes, rest);
      for (const onnx::Piece& piece : cut.graph.pieces)
        if (is_kept(piece)) rest->append(piece.whole);
      for (const std::string& weight : weights) onnx::put_bytes(number::kInitializer, weight, rest);
      continue;
    }
    const bool is_function = field.number == number::kFunctions;
    if (is_function || field.number == number::kOpsetImport) {
      string_view domain;
      Field part;
      for (Fields parts(field.bytes); parts.next(&part);)
        if (part.number == (is_function ? number::kFunctionDomain : number::kImportDomain)) domain = part.text();
      if (domain == kDomain) continue;
    }
    rest->append(field.whole);
  }
}

}  // namespace toolkit::load
