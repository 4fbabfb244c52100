// A coded segment written out as a body (FORMAT.md 2.2 to 2.4).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_LAY_OUT_H
#define TOOLKIT_WIDE_LAY_OUT_H

#include <vector>

#include "wide_encode_block.h"
#include "wide_model.h"
#include "wide_split.h"

namespace toolkit::wide {

struct CodedSegment {
  std::vector<TensorPlan> plans;
  std::vector<SetPlan> sets;
  TablesPlan tables;
  std::vector<Block> blocks;                         // tensor by tensor
  const std::vector<SplitSymbols>* split = nullptr;  // of the tensors of wide segments
  std::vector<uint16_t> nested;                      // the coded side information; empty where it is not nested
};

// The class and table streams.
struct SideBytes {
  std::vector<uint8_t> classes, tables;
};
SideBytes side_bytes(const CodedSegment& segment);

// Number of words of the body.
int64_t body_words(const CodedSegment& segment);

// Writes the body, body_words(segment) words.
void write_body(const CodedSegment& segment, int threads, uint16_t* to);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_LAY_OUT_H
