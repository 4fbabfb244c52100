// Load mode: how each weight comes out of its blob, read from the chain of operators behind it.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_LOAD_CHAINS_H
#define TOOLKIT_LOAD_CHAINS_H

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "load_cut.h"

namespace toolkit::load {

// A blob: what opens it is known by the op that reads it.
struct Blob {
  std::string_view words;
  bool is_stream = false;  // of a coder of small tensors, else wide
  int coder = 0;           // of a stream
  bool is_wide = false;    // symbols of a wide blob are int16
};

// Symbols that are decoded together: one tensor of a wide blob, or a stream.
struct Source {
  size_t blob = 0;
  int64_t lane = 0, lanes = 0, steps = 0;  // the place of a tensor
};

// Consecutive symbols of a source.
struct Symbols {
  size_t source = 0;
  int64_t first = 0;
  bool is_whole = false;   // all of a stream, whose length is not known yet
  bool is_part = false;    // taken out of a source that others may need too
  bool is_narrow = false;  // cast to int8
  int64_t offset = 0;      // added
  int32_t type = 0;        // what they are cast to
  std::vector<int64_t> dims;
};

// How values that belong to an axis of a tensor, or to blocks of it, spread over the tensor.
struct Spread {
  int64_t inner = 1, length = 0, blocks = 0, block = 0;
  bool repeats = false;  // each value must be written for every index of the axis
};

struct Weight {
  enum Kind { kSymbols, kDequantized, kLookedUp, kJoined } kind = kSymbols;
  onnx::Id name = onnx::kNoName;
  int32_t type = 0;
  std::vector<int64_t> dims;
  Symbols symbols;
  std::vector<float> scales;         // of kDequantized, as in tk_dequantize
  std::vector<int32_t> zero_points;  // as many, or none
  int64_t inner = 1;
  Spread spread;
  std::vector<char> codebook;            // of kLookedUp, aligned for its elements
  std::vector<std::string_view> planes;  // of kJoined, those behind the first

  int64_t bytes() const { return onnx::element_count(dims) * onnx::element_bytes(type); }
};

struct Chains {
  // Throws Unknown where a chain holds an operator, or a form of one, that is not known here.
  explicit Chains(const Cut& cut);

  // Writes out the scales of blocks that do not follow each other, as many as their tensor has elements: only where it
  // is known that the tensor has so many.
  void spread_scales();

  std::vector<Blob> blobs;
  std::vector<Source> sources;
  std::vector<Weight> weights;  // in the order of cut.weights

 private:
  Weight weight_of(onnx::Id id, int depth);
  Symbols symbols_of(onnx::Id id, int depth);
  Symbols taken(onnx::Id id, int depth);
  Symbols take_range(const onnx::Node& node, int depth);
  Symbols cast(const onnx::Node& node, int depth);
  Symbols shifted(const onnx::Node& node, int depth);
  Symbols take_tensor(const onnx::Node& node, onnx::Id id);
  Symbols stream_of(const onnx::Node& node, onnx::Id id);
  Weight dequantized(const onnx::Node& node, int depth);
  Weight multiplied(const onnx::Node& node, int depth);
  Weight looked_up(const onnx::Node& node, int depth);
  Weight joined(const onnx::Node& node, int depth);
  const onnx::Node* producer(onnx::Id id) const;
  onnx::Tensor constant(onnx::Id id) const;
  std::vector<int64_t> shape(onnx::Id id) const;
  int64_t scalar(onnx::Id id, int32_t type) const;
  size_t blob_of(onnx::Id id, const Blob& kind);

  const Cut& cut_;
  std::map<onnx::Id, size_t> blob_ids_;    // by initializer
  std::map<onnx::Id, size_t> source_ids_;  // by the value of the symbols
};

}  // namespace toolkit::load

#endif  // TOOLKIT_LOAD_CHAINS_H
