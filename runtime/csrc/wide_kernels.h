// Block decoders of the wide coder, one per instruction set, behind one interface.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_KERNELS_H
#define TOOLKIT_WIDE_KERNELS_H

#include <functional>

#include "wide_format.h"
#include "wide_search.h"

namespace toolkit::wide {

// How the table of a symbol is found.
enum class Mode {
  kOne,              // every symbol of the block has the same
  kClasses,          // by class
  kContexts,         // by class and context
  kTrellis,          // by class and quantiser; symbols stand for integers
  kTrellisContexts,  // the same, by context too
};
inline constexpr bool has_contexts(Mode mode) { return mode == Mode::kContexts || mode == Mode::kTrellisContexts; }
inline constexpr bool is_trellis(Mode mode) { return mode == Mode::kTrellis || mode == Mode::kTrellisContexts; }

// One block, ready to decode. A lane's symbols go to out + lane * lane_stride, contiguous.
struct BlockJob {
  const TableSet* set;
  const uint16_t* words;  // this block's code words
  const uint16_t* words_end;
  const uint16_t* readable_end;  // loads must stay below this
  const uint16_t* states;        // 2 words a lane
  const int8_t* row_class;       // [rows per lane][kLanes]: the class of each lane's row
  int64_t row_step;              // from one row to the next in row_class: kLanes, or 0 where all rows have one class
  const int8_t* col_class;       // [columns] class_c, or null
  const SearchForest* forest;    // the set's tables as search trees, or null
  const SearchTree* tree;        // likewise the block's only table
  int lanes;                     // 1 .. kLanes
  Mode mode;
  int low_bits;
  int64_t columns;    // C
  int64_t rows;       // of a full lane
  int64_t last_rows;  // of the last lane, 1 .. rows
  void* out;
  int64_t lane_stride;  // in symbols
};

// Hands out the next job of a decoder: one to be decoded at its place `seat`, where no other job is at work any more.
// False where there is none. All jobs go the same way: mode, columns with classes or not, tree, forest or neither.
using NextJob = std::function<bool(int seat, BlockJob* job)>;

inline constexpr int kMaxSeats = 8;  // blocks that are decoded side by side, which hides latency

// Decodes jobs, up to `seats` of them side by side, until there are no more. False where the code words of one do not
// end as FORMAT.md 2.6 says: the symbols written are then meaningless, and nothing outside the jobs' ranges was
// touched.
using DecodeBlocks = bool (*)(int seats, const NextJob& next);

struct Kernels {
  DecodeBlocks narrow;  // int8 symbols
  DecodeBlocks wide;    // int16 symbols
};

Kernels kernels_portable();
#if defined(__x86_64__)
Kernels kernels_avx2();
Kernels kernels_avx512();
#endif

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_KERNELS_H
