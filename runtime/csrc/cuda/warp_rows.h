// Which table a symbol is coded with (FORMAT.md 2.6 steps 1 to 3).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_WARP_ROWS_H
#define TOOLKIT_CUDA_WARP_ROWS_H

#include "decode_launch.h"
#include "warp_epilogue.h"
#include "warp_policy.h"
#include "warp_ring.h"
#include "wide_step.h"

namespace toolkit::cuda {

// What a kernel is made for. A kind can do what those before it do, by looking at the launch.
enum class SetKind {
  kPlain,            // neither contexts nor classes of columns
  kContexts,         // contexts
  kColumns,          // classes of columns
  kContextsColumns,  // both
  kAny,              // both or not, as the launch says
  kTrellis,          // the same with trellis states
};
TK_HOST_DEVICE constexpr bool is_trellis(SetKind kind) { return kind == SetKind::kTrellis; }
TK_HOST_DEVICE constexpr bool asks_launch(SetKind kind) { return kind == SetKind::kAny || is_trellis(kind); }
TK_HOST_DEVICE constexpr bool may_have_contexts(SetKind kind) {
  return kind == SetKind::kContexts || kind == SetKind::kContextsColumns || asks_launch(kind);
}
TK_HOST_DEVICE constexpr bool may_have_columns(SetKind kind) {
  return kind == SetKind::kColumns || kind == SetKind::kContextsColumns || asks_launch(kind);
}

// The rows that a warp's lanes are in.
template <SetKind kSet, class W>
struct LaneRows {
  TK_WARP LaneRows(const W& warp, const DecodeLaunch& from, const TensorJob& tensor, uint32_t first_lane,
                   const WarpMemory& memory)
      : launch(from),
        t(tensor),
        records(memory.shared + from.record_origin),
        column_classes(may_have_columns(kSet) && launch.columns ? from.classes_of_axes + tensor.class_c : nullptr) {
    warp.each([&](int i) {
      const uint32_t lane = first_lane + static_cast<uint32_t>(i);
      const bool present = lane < t.num_lanes;
      const uint32_t first_row = present ? lane * t.rows_per_lane : 0;
      rows[i] = present ? lesser(t.rows_per_lane, t.rows - first_row) : 0;
      a[i] = first_row / t.b;
      b[i] = first_row % t.b;
      fetch(i);
    });
  }

  TK_WARP void next_row(int i) {
    row_class[i] = next_class[i];
    if constexpr (!may_have_columns(kSet)) own[i] = place(row_class[i], 0);
    fetch(i);
  }

  // The classes of kCount columns from `column` on, a byte each; kCount divides the column's number.
  template <uint32_t kCount>
  TK_WARP uint32_t classes_at(uint32_t column) const {
    if constexpr (!may_have_columns(kSet)) return 0;
    if (asks_launch(kSet) && !column_classes) return 0;
    if constexpr (kCount == 4) return *reinterpret_cast<const uint32_t*>(column_classes + column);
    if constexpr (kCount == 2) return *reinterpret_cast<const uint16_t*>(column_classes + column);
    return static_cast<uint8_t>(column_classes[column]);
  }

  // Where the table begins, in bytes of shared memory or of the launch's tables.
  TK_WARP uint32_t table(int i, int column_class, int previous, int quantiser) const {
    if constexpr (kSet == SetKind::kPlain) return static_cast<uint32_t>(own[i]);
    int at;
    if constexpr (may_have_columns(kSet))
      at = place(row_class[i], column_class);
    else
      at = own[i];
    if constexpr (is_trellis(kSet)) at += quantiser * static_cast<int>(launch.record_stride);
    if constexpr (asks_launch(kSet))
      at += previous * launch.contexts;
    else if constexpr (may_have_contexts(kSet))
      at += previous;
    return table_at(at);
  }

 private:
  const DecodeLaunch& launch;
  const TensorJob& t;
  const uint8_t* records;  // where symbol 0 has its byte in the first one
  const int8_t* column_classes;
  // own: kPlain, where the row's table begins; else, without classes of columns, where its record does.
  typename W::template PerLane<uint32_t> a, b, rows;
  typename W::template PerLane<int> row_class, next_class, own;

  TK_WARP uint32_t table_at(int record) const { return records[record] * launch.table_stride + launch.record_bytes; }
  TK_WARP int place(int row, int column) const {
    constexpr int kQuantisers = is_trellis(kSet) ? 2 : 1;
    const int y = class_of(row, column, launch.classes);
    if constexpr (kSet == SetKind::kPlain) return static_cast<int>(table_at(y));
    return y * (kQuantisers * static_cast<int>(launch.record_stride));
  }

  // Reads the class of the lane's next row, one row ahead of its use.
  TK_WARP void fetch(int i) {
    int sum = t.base;
    if (rows[i] > 0) {
      --rows[i];
      if (t.class_a != kNoClasses) sum += launch.classes_of_axes[t.class_a + a[i]];
      if (t.class_b != kNoClasses) sum += launch.classes_of_axes[t.class_b + b[i]];
      if (++b[i] == t.b) {
        b[i] = 0;
        ++a[i];
      }
    }
    next_class[i] = wide::row_class_of(sum);
  }
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_ROWS_H
