// Which table each symbol of a tensor is coded with: steps 1 to 3 of FORMAT.md 2.6 as one look-up, for the encoder.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_TABLE_MAP_H
#define TOOLKIT_WIDE_TABLE_MAP_H

#include <cstdint>
#include <vector>

#include "wide_model.h"

namespace toolkit::wide {

class TableMap {
 public:
  // Refers to the plan's symbols and quantisers, which must stay.
  TableMap(const TensorPlan& plan, const SetPlan& set);

  // Smallest and largest class, before they are limited to the set's, of a row of class `row_class`.
  int lowest_class(int row_class) const { return row_class + lowest_column_; }
  int highest_class(int row_class) const { return row_class + highest_column_; }

  // Smallest and largest class of the set that any symbol has.
  int first_class() const { return first_class_; }
  int last_class() const { return last_class_; }

  // Where the symbols `first` .. `first + count - 1` of row `row`, of class `row_class`, stand in Counts:
  // calls use(i, index) for i = 0 .. count - 1.
  template <class Use>
  void visit(int64_t row, int row_class, int64_t first, int64_t count, Use use) const {
    const int8_t* const s = symbols_ + row * row_length_ + first;
    const uint32_t* const map = map_.data() + (row_class - lowest_row_) * width_;
    if (quantisers_) {
      const uint8_t* const q = quantisers_ + row * row_length_ + first;
      auto previous = static_cast<uint8_t>(first ? s[-1] : 0);
      for (int64_t i = 0; i < count; ++i) {
        const auto symbol = static_cast<int>(s[i]);
        const int column = columns_.empty() ? 0 : columns_[static_cast<size_t>(first + i)];
        const int before = contexts_ ? previous * kMaxQuantisers : 0;
        use(i, map[column + before + q[i]] + static_cast<uint32_t>(symbol));
        previous = static_cast<uint8_t>(symbol);
      }
    } else if (contexts_) {
      auto previous = static_cast<uint8_t>(first ? s[-1] : 0);
      if (columns_.empty()) {
        for (int64_t i = 0; i < count; ++i) {
          const auto symbol = static_cast<int>(s[i]);
          use(i, map[previous] + static_cast<uint32_t>(symbol));
          previous = static_cast<uint8_t>(symbol);
        }
      } else {
        const int32_t* const column = columns_.data() + first;
        for (int64_t i = 0; i < count; ++i) {
          const auto symbol = static_cast<int>(s[i]);
          use(i, map[column[i] + previous] + static_cast<uint32_t>(symbol));
          previous = static_cast<uint8_t>(symbol);
        }
      }
    } else if (columns_.empty()) {
      const uint32_t table = map[0];
      for (int64_t i = 0; i < count; ++i) use(i, table + static_cast<uint32_t>(s[i]));
    } else {
      const int32_t* const column = columns_.data() + first;
      for (int64_t i = 0; i < count; ++i) use(i, map[column[i]] + static_cast<uint32_t>(s[i]));
    }
  }

 private:
  const int8_t* symbols_;
  const uint8_t* quantisers_;  // null where the set does not tell them apart
  int64_t row_length_;
  bool contexts_;
  int width_;  // entries of the map for each class: by the symbol before and the quantiser
  int lowest_row_, lowest_column_ = 0, highest_column_ = 0;
  int first_class_, last_class_;
  std::vector<int32_t> columns_;  // class_c above its lowest, times width_; empty where absent
  std::vector<uint32_t>
      map_;  // [class above the lowest][symbol before][quantiser]: first of the table's entries, plus 128
};

// The maps of all tensors.
std::vector<TableMap> table_maps(const std::vector<TensorPlan>& plans, const std::vector<SetPlan>& sets);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_TABLE_MAP_H
