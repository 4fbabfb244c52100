// Load mode: which values of a model are decoded weights, and what remains of the model without their decoding.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_LOAD_CUT_H
#define TOOLKIT_LOAD_CUT_H

#include <string_view>
#include <vector>

#include "onnx_graph.h"

namespace toolkit::load {

// A model in two parts, as runtime/graph_rewrite.py cuts it, for models of one graph.
struct Cut {
  // Throws Unknown where the model must be cut there: it has graphs in nodes, functions with ops of the toolkit, ops of
  // other domains, dequantised activations, or a decoded value as an output.
  explicit Cut(std::string_view model);

  // Whether an initializer that is kept has its data elsewhere.
  bool keeps_external_data() const;

  std::string_view model;
  onnx::Graph graph;
  std::vector<onnx::Id> weights;        // initializers that the rest lacks
  std::vector<bool> keeps_node;         // of the graph
  std::vector<bool> keeps_initializer;  // of the graph
  std::vector<bool> is_decoded;         // by Id: made by the nodes that are cut out

 private:
  void mark(int64_t ir_version);
  void take_weights(const std::vector<std::string_view>& domains);
  void drop_unused();
};

// Writes the model without its decoding. `weights` are the initializers that it gets, TensorProtos.
void write_rest(const Cut& cut, const std::vector<std::string>& weights, std::string* rest);

}  // namespace toolkit::load

#endif  // TOOLKIT_LOAD_CUT_H
