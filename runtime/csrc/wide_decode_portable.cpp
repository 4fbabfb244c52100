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
  const bool trellis = job.mode == Mode::kTrellis;
  for (int i = 0; i < job.lanes; ++i) x[i] = load_u32(job.states + 2 * i);
  const uint16_t* p = job.words;
  const uint16_t* const end = job.words_end;
  auto* const out = static_cast<Symbol*>(job.out);
  const uint32_t low_mask = (1u << job.low_bits) - 1;
  const auto put = [trellis](int symbol, int* state) {
    if (!trellis) return static_cast<Symbol>(symbol);
    const int quantiser = *state & 1;
    *state = next_state(*state, symbol);
    return static_cast<Symbol>(reconstruct(symbol, quantiser));
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
        if (x[i] < kStateLow) {
          if (p == end) return false;
          x[i] = x[i] << 16 | *p++;
        }
        if constexpr (sizeof(Symbol) == 1) out[i * job.lane_stride + step] = put(v, &state[i]);
      }
      if constexpr (sizeof(Symbol) == 2) {
        for (int i = 0; i < active; ++i) {
          const auto low = static_cast<int>(x[i] & low_mask);
          out[i * job.lane_stride + step] = put(previous[i] * (1 << job.low_bits) + low, &state[i]);
          x[i] >>= job.low_bits;
          if (x[i] < kStateLow) {
            if (p == end) return false;
            x[i] = x[i] << 16 | *p++;
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
bool decode_blocks(const BlockJob* jobs, int count) {
  for (int i = 0; i < count; ++i)
    if (!decode_block<Symbol>(jobs[i])) return false;
  return true;
}

}  // namespace

Kernels kernels_portable() { return {decode_blocks<int8_t>, decode_blocks<int16_t>}; }

}  // namespace toolkit::wide
