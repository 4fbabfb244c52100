// Reads a model's main graph.
// SPDX-License-Identifier: Apache-2.0
#include "onnx_graph.h"

namespace toolkit::onnx {
namespace {

constexpr int64_t kMostElements = 0x7fffffff;
constexpr size_t kUsualNames = 1024;

// The name in a message whose field `number` it is.
std::string_view name_in(std::string_view message, uint32_t number) {
  std::string_view name;
  Field field;
  for (Fields fields(message); fields.next(&field);)
    if (field.number == number) name = field.text();
  return name;
}

// Finds an attribute; its fields are then read by visit(field).
template <class Visit>
bool visit_attribute(const Node& node, std::string_view name, Visit visit) {
  Field field;
  for (Fields fields(node.content); fields.next(&field);) {
    if (field.number != number::kAttribute || name_in(field.text(), number::kAttributeName) != name) continue;
    Field part;
    for (Fields parts(field.bytes); parts.next(&part);) {
      if (part.number == number::kReference) throw Unknown();
      visit(part);
    }
    return true;
  }
  return false;
}

}  // namespace

int64_t element_bytes(int32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
      return 1;
    case kUint16:
    case kInt16:
    case kFloat16:
    case kBfloat16:
      return 2;
    case kFloat:
    case kInt32:
      return 4;
    case kInt64:
      return 8;
    default:
      return 0;
  }
}

int64_t element_count(const std::vector<int64_t>& dims) {
  int64_t count = 1;
  for (const int64_t size : dims) {
    if (size < 1 || count > kMostElements / size) throw Unknown();
    count *= size;
  }
  return count;
}

Graph::Graph(std::string_view content) {
  values.emplace_back();  // the empty name
  ids_.reserve(kUsualNames);
  Field field;
  for (Fields fields(content); fields.next(&field);) {
    Piece piece{Piece::kOther, 0, field.whole};
    switch (field.number) {
      case number::kNode:
        piece.kind = Piece::kNode;
        piece.index = static_cast<int64_t>(nodes.size());
        add_node(field.text());
        break;
      case number::kInitializer: {
        piece.kind = Piece::kInitializer;
        piece.index = static_cast<int64_t>(initializers.size());
        const Id id = id_of(name_in(field.text(), number::kTensorName));
        if (id == kNoName || values[id].initializer >= 0) throw Unknown();
        values[id].initializer = piece.index;
        initializers.push_back({field.whole, field.bytes, id});
        break;
      }
      case number::kValueInfo:
        piece.kind = Piece::kValueInfo;
        piece.index = id_of(name_in(field.text(), number::kValueInfoName));
        break;
      case number::kInput:
        values[id_of(name_in(field.text(), number::kValueInfoName))].is_input = true;
        break;
      case number::kOutput:
        outputs.push_back(id_of(name_in(field.text(), number::kValueInfoName)));
        break;
      case number::kSparseInitializer:
        throw Unknown();
      default:
        break;
    }
    pieces.push_back(piece);
  }
  for (const Value& value : values)
    if (value.node >= 0 && (value.initializer >= 0 || value.is_input)) throw Unknown();
}

Id Graph::id_of(std::string_view name) {
  if (name.empty()) return kNoName;
  const auto [at, is_new] = ids_.emplace(name, static_cast<Id>(values.size()));
  if (is_new) values.push_back({name, -1, -1, false});
  return at->second;
}

void Graph::add_node(std::string_view content) {
  Node node;
  node.content = content;
  std::vector<Id> node_outputs;
  node.first_input = static_cast<uint32_t>(names_of_nodes_.size());
  Field field;
  for (Fields fields(content); fields.next(&field);) {
    switch (field.number) {
      case number::kNodeInput:
        names_of_nodes_.push_back(id_of(field.text()));
        ++node.num_inputs;
        break;
      case number::kNodeOutput:
        node_outputs.push_back(id_of(field.text()));
        break;
      case number::kOpType:
        node.op_type = field.text();
        break;
      case number::kNodeDomain:
        node.domain = field.text();
        break;
      case number::kAttribute: {
        Field part;
        for (Fields parts(field.text()); parts.next(&part);)
          if (part.number == number::kSubgraph || part.number == number::kSubgraphs) node.has_graphs = true;
        break;
      }
      default:
        break;
    }
  }
  if (node.domain == "ai.onnx") node.domain = "";
  node.first_output = static_cast<uint32_t>(names_of_nodes_.size());
  node.num_outputs = static_cast<uint32_t>(node_outputs.size());
  for (const Id id : node_outputs) {
    if (id != kNoName && values[id].node >= 0) throw Unknown();
    values[id].node = id == kNoName ? -1 : static_cast<int64_t>(nodes.size());
    names_of_nodes_.push_back(id);
  }
  nodes.push_back(node);
}

Tensor Graph::tensor(const Initializer& initializer) const {
  Tensor tensor;
  bool has_raw = false;
  Field field;
  for (Fields fields(initializer.content); fields.next(&field);) {
    switch (field.number) {
      case number::kDims:
        append_integers(field, &tensor.dims);
        break;
      case number::kDataType:
        tensor.type = static_cast<int32_t>(field.integer());
        break;
      case number::kRawData:
        tensor.raw = field.text();
        has_raw = true;
        break;
      case number::kDataLocation:
        if (field.integer() != 0) throw Unknown();
        break;
      case number::kTensorName:
        break;
      default:
        if (field.number <= 11) throw Unknown();  // data in another form
        break;
    }
  }
  const int64_t bytes = element_bytes(tensor.type);
  if (!has_raw || !bytes || static_cast<int64_t>(tensor.raw.size()) != tensor.count() * bytes) throw Unknown();
  return tensor;
}

int64_t integer_of(const Node& node, std::string_view name, int64_t absent) {
  int64_t value = absent;
  bool is_integer = false;
  const bool found = visit_attribute(node, name, [&](const Field& part) {
    if (part.number != number::kInt) return;
    value = part.integer();
    is_integer = true;
  });
  if (found && !is_integer) throw Unknown();
  return value;
}

bool integers_of(const Node& node, std::string_view name, std::vector<int64_t>* integers) {
  return visit_attribute(node, name, [&](const Field& part) {
    if (part.number == number::kInts) append_integers(part, integers);
  });
}

}  // namespace toolkit::onnx
