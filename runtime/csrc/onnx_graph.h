// What load mode asks of a model's main graph, as views into the model's bytes (onnx.proto).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ONNX_GRAPH_H
#define TOOLKIT_ONNX_GRAPH_H

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "onnx_wire.h"

namespace toolkit::onnx {

// Field numbers of onnx.proto.
namespace number {
enum Model : uint32_t { kIrVersion = 1, kGraph = 7, kOpsetImport = 8, kFunctions = 25 };
enum Graph : uint32_t {
  kNode = 1,
  kInitializer = 5,
  kInput = 11,
  kOutput = 12,
  kValueInfo = 13,
  kSparseInitializer = 15
};
enum Node : uint32_t { kNodeInput = 1, kNodeOutput = 2, kOpType = 4, kAttribute = 5, kNodeDomain = 7 };
enum Attribute : uint32_t { kAttributeName = 1, kInt = 3, kSubgraph = 6, kInts = 8, kSubgraphs = 11, kReference = 21 };
enum Tensor : uint32_t {
  kDims = 1,
  kDataType = 2,
  kTensorName = 8,
  kRawData = 9,
  kExternalData = 13,
  kDataLocation = 14
};
enum Entry : uint32_t { kKey = 1, kValue = 2 };
enum Other : uint32_t { kValueInfoName = 1, kImportDomain = 1, kFunctionName = 1, kFunctionDomain = 10 };
}  // namespace number

// TensorProto.DataType
enum DataType : int32_t {
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kFloat16 = 10,
  kBfloat16 = 16
};

// Bytes of an element, 0 for a type that is not listed above.
int64_t element_bytes(int32_t type);

// The number of elements. Throws Unknown where a size is below 1 or there are more than 2^31 - 1.
int64_t element_count(const std::vector<int64_t>& dims);

using Id = uint32_t;  // of the name of a value; kNoName is the empty one
constexpr Id kNoName = 0;

struct Node {
  std::string_view content, op_type, domain;
  uint32_t first_input = 0, num_inputs = 0, first_output = 0, num_outputs = 0;  // of Graph::names_of_nodes
  bool has_graphs = false;
};

struct Initializer {
  std::string_view whole, content;  // of the field with and without its tag
  Id name = kNoName;
};

// An initializer's data, where it is in the model.
struct Tensor {
  int32_t type = 0;
  std::vector<int64_t> dims;
  std::string_view raw;

  int64_t count() const { return element_count(dims); }
};

struct Value {
  std::string_view name;
  int64_t node = -1, initializer = -1;  // what makes it
  bool is_input = false;
};

// A piece of the graph's content: a field.
struct Piece {
  enum Kind : uint8_t { kNode, kInitializer, kValueInfo, kOther } kind;
  int64_t index;  // of the node, initializer or value, 0 for others
  std::string_view whole;
};

class Graph {
 public:
  // Throws Unknown for what is no graph, and for a graph with sparse initializers or two values of one name.
  explicit Graph(std::string_view content);

  std::vector<Node> nodes;
  std::vector<Initializer> initializers;
  std::vector<Value> values;  // by Id
  std::vector<Id> outputs;
  std::vector<Piece> pieces;  // all of the graph, in its order

  const Id* inputs_of(const Node& node) const { return names_of_nodes_.data() + node.first_input; }
  const Id* outputs_of(const Node& node) const { return names_of_nodes_.data() + node.first_output; }
  // Throws Unknown where the data is elsewhere or not in raw form.
  Tensor tensor(const Initializer& initializer) const;

 private:
  Id id_of(std::string_view name);
  void add_node(std::string_view content);

  std::unordered_map<std::string_view, Id> ids_;
  std::vector<Id> names_of_nodes_;
};

// Attributes of a node, by name. Both throw Unknown where the attribute is of another type.
int64_t integer_of(const Node& node, std::string_view name, int64_t absent);
// False where the node has no such attribute.
bool integers_of(const Node& node, std::string_view name, std::vector<int64_t>* integers);

}  // namespace toolkit::onnx

#endif  // TOOLKIT_ONNX_GRAPH_H
