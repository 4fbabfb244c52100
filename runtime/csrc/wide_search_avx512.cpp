// The AVX-512 block decoder for small alphabets: no memory access finds a symbol, and 16-bit arithmetic does for all.
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include "wide_search_avx512.h"

#include "wide_avx512_block.h"
#include "wide_search.h"

namespace toolkit::wide {
namespace {

// Elements n, below 2^Bits, of a table of 16-bit values.
template <int Bits>
TK_INLINE __m512i select(const uint16_t* table, __m512i n) {
  if constexpr (Bits <= 5) {
    return _mm512_permutexvar_epi16(n, load512(table));
  } else if constexpr (Bits == 6) {
    return _mm512_permutex2var_epi16(load512(table), n, load512(table + 32));
  } else {
    constexpr int half = 1 << (Bits - 1);
    const __mmask32 upper = _mm512_test_epi16_mask(n, _mm512_set1_epi16(half));
    return _mm512_mask_mov_epi16(select<Bits - 1>(table, n), upper, select<Bits - 1>(table + half, n));
  }
}

// What a search finds of the symbols of 32 lanes; 32 x uint16 each.
struct Found {
  __m512i f16;   // 16 times its frequency
  __m512i bias;  // slot - its first slot
  __m512i path;  // its lowest bits are those of the leaf
};

// One level of a search: to the right where the node, stored less one, is below the slot, so that node - slot is
// negative. Differences instead of comparisons, whose masks would take longer to come back.
TK_INLINE __m512i descend(__m512i path, __m512i difference) { return _mm512_shldi_epi16(path, difference, 1); }

TK_INLINE __m512i complement(__m512i x) { return _mm512_ternarylogic_epi32(x, x, x, 0x55); }

// The tree of a block's only table. As in Forest, search() goes down the trees of Count blocks, trees(i) of block i,
// one level of all of them after the other: each level waits for the one above.
struct OneTree {
  static constexpr int kSeats = 8;

  const SearchTree* tree;

  void set(const BlockJob& job) { tree = job.tree; }
  int first_symbol() const { return tree->first_symbol; }
  bool has_outer() const { return false; }
  static const uint8_t* map_of(const BlockJob& job) { return job.set->map; }

  template <int Count, class TreesOf>
  static TK_INLINE void search(TreesOf trees, const __m512i* slot, Found* f) {
    // A path, with the 1 that it begins with, is the place of its node, and in the end of its leaf.
    for (int level = 0; level < kSearchLevels; ++level)
      for (int i = 0; i < Count; ++i)
        f[i].path = descend(f[i].path, _mm512_sub_epi16(select<5>(trees(i).tree->nodes, f[i].path), slot[i]));
    for (int i = 0; i < Count; ++i) {
      f[i].f16 = select<5>(trees(i).tree->frequencies, f[i].path);
      f[i].bias = _mm512_sub_epi16(slot[i], select<5>(trees(i).tree->nodes, f[i].path));
    }
  }

  static TK_INLINE __m512i roots(__m256i) { return _mm512_set1_epi16(1); }
  static TK_INLINE __mmask32 outer(__mmask32, const Found&) { return 0; }
  void find_outer(const uint32_t*, __mmask32, __m512i, Found*, __m256i*) const {}
};

// The trees of a set, by the number of the tree.
template <int TreeBits>
struct Forest {
  // More trees keep the processor busier: fewer blocks hide its latency, and more of them stay in registers.
  static constexpr int kSeats = TreeBits == SearchForest::kTreeBits ? 8 : 4;

  const SearchForest* forest;

  void set(const BlockJob& job) { forest = job.forest; }
  int first_symbol() const { return forest->first_symbol; }
  bool has_outer() const { return forest->has_outer; }
  static const uint8_t* map_of(const BlockJob& job) { return job.forest->map; }

  // `below`, `above`: the first slots of the symbol and of the next one, less one each, minus the slot.
  template <int Level, int Count, class TreesOf>
  static TK_INLINE void go_down(TreesOf trees, const __m512i* slot, Found* f, __m512i* below, __m512i* above) {
    constexpr int first = ((1 << Level) - 1) << TreeBits;
    for (int i = 0; i < Count; ++i) {
      const __m512i node = select<TreeBits + Level>(trees(i).forest->nodes + first, f[i].path);
      const __m512i difference = _mm512_sub_epi16(node, slot[i]);
      f[i].path = descend(f[i].path, difference);
      // As unsigned numbers the negative differences, those to the left, come after the others.
      below[i] = _mm512_max_epu16(below[i], difference);
      above[i] = _mm512_min_epu16(above[i], difference);
    }
    if constexpr (Level + 1 < kSearchLevels) go_down<Level + 1, Count>(trees, slot, f, below, above);
  }

  template <int Count, class TreesOf>
  static TK_INLINE void search(TreesOf trees, const __m512i* slot, Found* f) {
    __m512i below[Count], above[Count];
    for (int i = 0; i < Count; ++i) {
      below[i] = complement(slot[i]);                                          // -1 - slot
      above[i] = _mm512_andnot_si512(slot[i], _mm512_set1_epi16(kSlots - 1));  // 4095 - slot
    }
    go_down<0, Count>(trees, slot, f, below, above);
    for (int i = 0; i < Count; ++i) {
      f[i].f16 = _mm512_slli_epi16(_mm512_sub_epi16(above[i], below[i]), 4);
      f[i].bias = complement(below[i]);
    }
  }

  static TK_INLINE __m512i roots(__m256i tables) { return _mm512_cvtepu8_epi16(tables); }

  // The lanes of `mask` whose symbols are in outermost leaves.
  static TK_INLINE __mmask32 outer(__mmask32 mask, const Found& f) {
    // Leaves 15 and 0, plus 1, have none of the bits 1 to 3.
    return _mm512_mask_testn_epi16_mask(mask, _mm512_add_epi16(f.path, _mm512_set1_epi16(1)),
                                        _mm512_set1_epi16(SearchForest::kLeaves - 2));
  }

  // Finds what lanes in outermost leaves have by the slots of their tables. `symbols`: of all lanes.
  void find_outer(const uint32_t* slots, __mmask32 lanes, __m512i slot, Found* f, __m256i* symbols) const {
    alignas(64) uint16_t at[kLanes], paths[kLanes], f16[kLanes], bias[kLanes];
    alignas(32) uint8_t found[kLanes];
    _mm512_store_si512(at, slot);
    _mm512_store_si512(paths, f->path);
    _mm512_store_si512(f16, f->f16);
    _mm512_store_si512(bias, f->bias);
    _mm256_store_si256(reinterpret_cast<__m256i*>(found), *symbols);
    for (uint32_t left = lanes; left; left &= left - 1) {
      const int i = __builtin_ctz(left);
      const uint32_t entry = slots[forest->tables[paths[i] >> kSearchLevels] * kSlots + at[i]];
      f16[i] = static_cast<uint16_t>((entry >> 8 & 0xfff) << 4);
      bias[i] = static_cast<uint16_t>(entry >> 20);
      found[i] = static_cast<uint8_t>(entry);
    }
    f->f16 = load512(f16);
    f->bias = load512(bias);
    *symbols = _mm256_load_si256(reinterpret_cast<const __m256i*>(found));
  }
};

template <bool Wide, class Trees>
struct SearchCore {
  static constexpr bool kWide = Wide;
  static constexpr int kSeats = Wide ? 4 : Trees::kSeats;

  struct Constants {
    __m256i transitions = transition_table();
  };

  struct Hot : HotBase {
    __m512i high, low;  // halves of the states, 32 x uint16
  };

  struct Row : RowBase {
    Trees trees;
    __m256i first_symbol;
    __m512i roots;  // where neither columns nor contexts change them
    const uint32_t* slots;
  };

  static const uint8_t* map_of(const BlockJob& job) { return Trees::map_of(job); }
  static void start(const BlockJob& job, Row* row) {
    row->trees.set(job);
    row->slots = job.set->slots;
    row->first_symbol = _mm256_set1_epi8(static_cast<int8_t>(row->trees.first_symbol()));
  }
  static TK_INLINE void start_row(Row* row) { row->roots = Trees::roots(lower_half(row->choice.tables[0])); }

  static void load_states(const uint32_t* x, Hot* h) {
    alignas(64) uint16_t high[kLanes], low[kLanes];
    for (int i = 0; i < kLanes; ++i) high[i] = static_cast<uint16_t>(x[i] >> 16), low[i] = static_cast<uint16_t>(x[i]);
    h->high = load512(high);
    h->low = load512(low);
  }

  // The lanes whose states are those of the end.
  static __mmask32 resting(const Hot& h) {
    static_assert(kStateLow == 1u << 16);
    return _mm512_cmpeq_epi16_mask(h.high, _mm512_set1_epi16(1)) & _mm512_testn_epi16_mask(h.low, h.low);
  }

  // Refills the states below 2^16 among the lanes of `mask` (FORMAT.md 2.6 step 5).
  static TK_INLINE void refill(__mmask32 mask, Hot& h) {
    const __mmask32 m = _mm512_mask_testn_epi16_mask(mask, h.high, h.high);
    __m512i next = load512(h.p);
    asm("" : "+v"(next));  // from a register: expanding from memory is microcode, many times slower
    h.high = _mm512_mask_mov_epi16(h.high, m, h.low);
    h.low = _mm512_mask_expand_epi16(h.low, m, next);
    h.p += _mm_popcnt_u32(m);
  }

  // x <- f * (x >> 12) + bias
  static TK_INLINE void advance(const Found& f, Hot& h) {
    // f16 fits 16 bits, as f < 4096; with x = high * 2^16 + top + x % 4096 it multiplies each part / 16.
    const __m512i top = _mm512_and_si512(h.low, _mm512_set1_epi16(static_cast<int16_t>(0xf000)));
    // f * (low >> 12) + bias <= 4095 * 15 + 4094: fits.
    const __m512i rest = _mm512_add_epi16(_mm512_mulhi_epu16(f.f16, top), f.bias);
    const __m512i low = _mm512_add_epi16(_mm512_mullo_epi16(f.f16, h.high), rest);
    const __mmask32 carry = _mm512_cmplt_epu16_mask(low, rest);
    const __m512i high = _mm512_mulhi_epu16(f.f16, h.high);
    h.high = _mm512_mask_sub_epi16(high, carry, high, _mm512_set1_epi16(-1));
    h.low = low;
  }

  // Symbols farther out than the leaves reach, which are seldom there.
  template <int Count>
  static TK_INLINE void find_outer(const Seat<SearchCore>* s, const __m512i* slot, Found* f, __m256i* symbols) {
    __mmask32 lanes[Count], any = 0;
    for (int i = 0; i < Count; ++i) any |= lanes[i] = Trees::outer(s[i].row.active, f[i]);
    if (__builtin_expect(any == 0, 1)) return;
    for (int i = 0; i < Count; ++i) {
      if (!lanes[i]) continue;
      // Copies, whose addresses may be known, keep the others in registers.
      Found found = f[i];
      __m256i of_lanes = symbols[i];
      s[i].row.trees.find_outer(s[i].row.slots, lanes[i], slot[i], &found, &of_lanes);
      f[i] = found;
      symbols[i] = of_lanes;
    }
  }

  // One step of all active lanes of Count seats. `Columns`: columns have classes. The symbols of all lanes, of trellis
  // sets the integers, go to the line.
  template <Mode M, bool Columns, int Count>
  static TK_INLINE void step(const Constants& k, Seat<SearchCore>* s, Hot* h, int64_t c, int64_t at) {
    __m512i slot[Count];
    Found f[Count];
    for (int i = 0; i < Count; ++i) {
      if constexpr (has_history(M) || Columns)
        f[i].path = Trees::roots(table_in_step<M, Columns>(s[i], h[i], c));
      else
        f[i].path = s[i].row.roots;
    }
    for (int i = 0; i < Count; ++i) slot[i] = _mm512_and_si512(h[i].low, _mm512_set1_epi16(kSlots - 1));
    Trees::template search<Count>([s](int i) { return s[i].row.trees; }, slot, f);
    __m256i all_symbols[Count];
    for (int i = 0; i < Count; ++i) {
      const __m256i leaf = _mm256_set1_epi8(SearchForest::kLeaves - 1);
      all_symbols[i] = _mm256_add_epi8(_mm256_and_si256(_mm512_cvtepi16_epi8(f[i].path), leaf), s[i].row.first_symbol);
    }
    if (s[0].row.trees.has_outer()) find_outer<Count>(s, slot, f, all_symbols);
    for (int i = 0; i < Count; ++i) advance(f[i], h[i]);
    for (int i = 0; i < Count; ++i) refill(s[i].row.active, h[i]);
    for (int i = 0; i < Count; ++i) {
      const Row& r = s[i].row;
      const __m256i symbols = all_symbols[i];
      char* const to = s[i].line.steps + at * Line<Wide>::kStepBytes;
      if constexpr (has_contexts(M)) h[i].previous = symbols;
      if constexpr (!Wide) {
        const __m256i values = is_trellis(M) ? integers_of(h[i].trellis, symbols) : symbols;
        _mm256_store_si256(reinterpret_cast<__m256i*>(to), values);
        if constexpr (is_trellis(M)) h[i].trellis = next_states(k.transitions, h[i].trellis, symbols);
      } else {
        __m512i values = _mm512_cvtepi8_epi16(symbols);
        if (r.low_bits) {
          const __m512i n = _mm512_set1_epi16(static_cast<int16_t>(r.low_bits));
          const __m512i raw =
              _mm512_and_si512(h[i].low, _mm512_set1_epi16(static_cast<int16_t>((1 << r.low_bits) - 1)));
          values = _mm512_or_si512(_mm512_sllv_epi16(values, n), raw);
          h[i].low = _mm512_shrdv_epi16(h[i].low, h[i].high, n);
          h[i].high = _mm512_srlv_epi16(h[i].high, n);
          refill(r.active, h[i]);
        }
        if constexpr (is_trellis(M)) {
          _mm512_store_si512(to, wide_integers_of(h[i].trellis, values));
          h[i].trellis = next_states(k.transitions, h[i].trellis, _mm512_cvtepi16_epi8(values));
        } else {
          _mm512_store_si512(to, values);
        }
      }
    }
  }
};

template <bool Wide>
bool search_blocks(const BlockJob& first, int seats, const NextJob& next) {
  if (first.tree) return decode_all_jobs<SearchCore<Wide, OneTree>, Mode::kClasses, false>(first, seats, next);
  if (first.forest->tree_bits == SearchForest::kTreeBits)
    return decode_in_any_mode<SearchCore<Wide, Forest<SearchForest::kTreeBits>>>(first, seats, next);
  return decode_in_any_mode<SearchCore<Wide, Forest<SearchForest::kMostTreeBits>>>(first, seats, next);
}

}  // namespace

bool search_blocks_avx512(bool wide, const BlockJob& first, int seats, const NextJob& next) {
  return wide ? search_blocks<true>(first, seats, next) : search_blocks<false>(first, seats, next);
}

}  // namespace toolkit::wide
#endif
