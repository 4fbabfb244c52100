// Coding of blocks: the rANS steps of FORMAT.md 2.6, backwards.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_ENCODE_BLOCK_H
#define TOOLKIT_WIDE_ENCODE_BLOCK_H

#include <vector>

#include "wide_model.h"
#include "wide_push.h"
#include "wide_table_map.h"

namespace toolkit::wide {

struct Block {
  std::vector<uint16_t> words;
  uint32_t states[kLanes];
};

// What the blocks of a tensor are coded from.
struct BlockSource {
  const TensorPlan* plan;
  const TableMap* map;
  const Divisor* divisors;  // by index of Counts of the shared tables
  const uint8_t* low;       // raw low bits by symbol, or null
};

// Memory that one block after the other uses.
struct BlockScratch {
  std::vector<uint32_t> indices;
  std::vector<uint16_t> words;
};

// Codes block `block` of the tensor.
void encode_block(const BlockSource& source, int64_t block, BlockScratch* scratch, Block* out);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_ENCODE_BLOCK_H
