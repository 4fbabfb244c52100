// The portable block decoder: plain C++, the yardstick of the vectorised ones.
// SPDX-License-Identifier: Apache-2.0
#include "wide_kernels.h"
#include "wide_step.h"

namespace toolkit::wide {
namespace {

template <class Symbol>
bool decode_block(const BlockJob& job) {
  const TableSet& set = *job.set;
  uint32_t x[kLanes];
  int previous[kLanes], state[kLanes];
  const bool trellis = is_trellis(job.mode);
  for (int i = 0; i < job.lanes; ++i) x[i] = load_u32(job.states + 2 * i);
  const uint16_t* p = job.words;
  const uint16_t* const end = job.words_end;
  auto* const out = static_cast<Symbol*>(job.out);
  const auto put = [trellis](int symbol, int* state) {
    return static_cast<Symbol>(trellis ? trellis_integer(symbol, state) : symbol);
  };
  for (int64_t row = 0; row < job.rows; ++row) {
    const int active = row < job.last_rows ? job.lanes : job.lanes - 1;
    for (int i = 0; i < active; ++i) previous[i] = state[i] = 0;
    for (int64_t c = 0; c < job.columns; ++c) {
      const int64_t step = row * job.columns + c;
      const int col_class = job.col_class ? job.col_class[c] : 0;
      for (int i = 0; i < active; ++i) {
        const int y = class_of(job.row_class[row * job.row_step + i], col_class, set.classes);
        const int z = set.contexts == 1 ? 0 : context_of(previous[i], set.t1[y], set.t2[y]);
        const int q = trellis ? state[i] & 1 : 0;
        const int64_t table = set.map[set.place_of(y, z, q)];
        const int v = pop_symbol(set.slots[table * kSlots + x[i] % kSlots], &x[i]);
        previous[i] = v;
        if (needs_word(x[i])) {
          if (p == end) return false;
          x[i] = with_word(x[i], *p++);
        }
        if constexpr (sizeof(Symbol) == 1) out[i * job.lane_stride + step] = put(v, &state[i]);
      }
      if constexpr (sizeof(Symbol) == 2) {
        for (int i = 0; i < active; ++i) {
          out[i * job.lane_stride + step] = put(join_low_bits(previous[i], job.low_bits, &x[i]), &state[i]);
          if (needs_word(x[i])) {
            if (p == end) return false;
            x[i] = with_word(x[i], *p++);
          }
        }
      }
    }
  }
  for (int i = 0; i < job.lanes; ++i)
    if (x[i] != kStateLow) return false;
  return p == end;
}

template <class Symbol>
bool decode_blocks(int, const NextJob& next) {
  BlockJob job;
  while (next(0, &job))
    if (!decode_block<Symbol>(job)) return false;
  return true;
}

}  // namespace

Kernels kernels_portable() { return {decode_blocks<int8_t>, decode_blocks<int16_t>}; }

}  // namespace toolkit::wide
