// The search over the states of a row, eight of them side by side: states 0-3, which come from quantiser 0 ... 7, are
// the lanes of vectors. Two rows at a time, since each step of a row waits for the one before. SPDX-License-Identifier:
// Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include "trellis_row.h"
#include "wide_step.h"

namespace toolkit::wide {
namespace {

// Each state is reached from two others, the second of which is the first with bit 2 flipped.
constexpr int kFrom[8] = {0, 2, 0, 2, 3, 1, 3, 1};
// What the four candidates of a quantiser stand for: the nearest symbol of each parity, then the next ones inwards.
constexpr int kInner = 2;

constexpr bool reaches(int state, int from, int parity) { return next_state(from, parity) == state; }
constexpr bool transitions_are_as_here() {
  for (int s = 0; s < 8; ++s) {
    const int parity = s == 2 || s == 3 || s == 4 || s == 5 ? 1 : 0;
    if (!reaches(s, kFrom[s], parity) || !reaches(s, kFrom[s] ^ 4, 1 - parity)) return false;
    if ((kFrom[s] & 1) != (s >= 4)) return false;
  }
  return true;
}
static_assert(transitions_are_as_here());

// Candidate of each state after a step from its first and from its second predecessor, of quantiser 0 and 1.
constexpr int kLowFirst = _MM_SHUFFLE(1, 1, 0, 0), kLowSecond = _MM_SHUFFLE(0, 0, 1, 1);
constexpr int kLowInner = _MM_SHUFFLE(3, 3, 2, 2), kLowSecondInner = _MM_SHUFFLE(2, 2, 3, 3);

// Eight doubles: of states 0-3 and 4-7.
struct Doubles {
  __m256d low, high;
};

inline __m256i masks32(Doubles m) {
  const __m256 mixed = _mm256_shuffle_ps(_mm256_castpd_ps(m.low), _mm256_castpd_ps(m.high), _MM_SHUFFLE(2, 0, 2, 0));
  return _mm256_permute4x64_epi64(_mm256_castps_si256(mixed), _MM_SHUFFLE(3, 1, 2, 0));
}

class Row {
 public:
  explicit Row(TrellisRow* row) : row_(row) {
    cost_ = {_mm256_setr_pd(0, kInfinite, kInfinite, kInfinite), _mm256_set1_pd(kInfinite)};
  }

  template <bool Rates>
  __attribute__((always_inline)) void step(int64_t c) {
    find_candidates(c);
    const __m256d first_low = _mm256_permute4x64_pd(cost_.low, _MM_SHUFFLE(2, 0, 2, 0));
    const __m256d first_high = _mm256_permute4x64_pd(cost_.low, _MM_SHUFFLE(1, 3, 1, 3));
    const __m256d second_low = _mm256_permute4x64_pd(cost_.high, _MM_SHUFFLE(2, 0, 2, 0));
    const __m256d second_high = _mm256_permute4x64_pd(cost_.high, _MM_SHUFFLE(1, 3, 1, 3));
    Doubles near0{_mm256_permute4x64_pd(penalty_.low, kLowFirst), _mm256_permute4x64_pd(penalty_.high, kLowSecond)};
    Doubles inner0{_mm256_permute4x64_pd(penalty_.low, kLowInner),
                   _mm256_permute4x64_pd(penalty_.high, kLowSecondInner)};
    Doubles near1{_mm256_permute4x64_pd(penalty_.low, kLowSecond), _mm256_permute4x64_pd(penalty_.high, kLowFirst)};
    Doubles inner1{_mm256_permute4x64_pd(penalty_.low, kLowSecondInner),
                   _mm256_permute4x64_pd(penalty_.high, kLowInner)};
    const __m256i nearest0 = _mm256_setr_epi32(0, 0, 1, 1, 5, 5, 4, 4);
    const __m256i nearest1 = _mm256_setr_epi32(1, 1, 0, 0, 4, 4, 5, 5);
    const __m256i inwards = _mm256_set1_epi32(kInner);
    if (Rates) {
      const __m256i places = places_of(c);
      const __m256i place0 = _mm256_permutevar8x32_epi32(places, _mm256_setr_epi32(0, 2, 0, 2, 3, 1, 3, 1));
      const __m256i place1 = _mm256_permutevar8x32_epi32(places, _mm256_setr_epi32(4, 6, 4, 6, 7, 5, 7, 5));
      add_rate(place0, nearest0, &near0);
      add_rate(place1, nearest1, &near1);
      add_rate(place0, _mm256_add_epi32(nearest0, inwards), &inner0);
      add_rate(place1, _mm256_add_epi32(nearest1, inwards), &inner1);
    }
    const __m256i is_inner0 = less(inner0, near0), is_inner1 = less(inner1, near1);
    const Doubles cost0{_mm256_add_pd(first_low, _mm256_min_pd(inner0.low, near0.low)),
                        _mm256_add_pd(first_high, _mm256_min_pd(inner0.high, near0.high))};
    const Doubles cost1{_mm256_add_pd(second_low, _mm256_min_pd(inner1.low, near1.low)),
                        _mm256_add_pd(second_high, _mm256_min_pd(inner1.high, near1.high))};
    const __m256i is_second = less(cost1, cost0);
    cost_ = {_mm256_min_pd(cost1.low, cost0.low), _mm256_min_pd(cost1.high, cost0.high)};
    const __m256i from0 = _mm256_add_epi32(nearest0, _mm256_and_si256(is_inner0, inwards));
    const __m256i from1 = _mm256_add_epi32(nearest1, _mm256_and_si256(is_inner1, inwards));
    const __m256i chosen = _mm256_blendv_epi8(from0, from1, is_second);
    coded_ = _mm256_permutevar8x32_epi32(candidate_coded_, chosen);
    const __m256i symbols = _mm256_permutevar8x32_epi32(candidate_symbols_, chosen);
    const __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(symbols), _mm256_extracti128_si256(symbols, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row_->steps + 8 * c), packed);
    row_->from[c] = static_cast<uint8_t>(_mm256_movemask_ps(_mm256_castsi256_ps(is_second)));
  }

  void trace_back() {
    alignas(32) double costs[8];
    _mm256_store_pd(costs, cost_.low);
    _mm256_store_pd(costs + 4, cost_.high);
    int state = 0;
    for (int s = 1; s < 8; ++s)
      if (costs[s] < costs[state]) state = s;
    row_->cost = costs[state];
    for (int64_t c = row_->columns - 1; c >= 0; --c) {
      row_->symbols[c] = row_->steps[8 * c + state];
      state = kFrom[state] ^ (row_->from[c] >> state & 1) << 2;
    }
  }

 private:
  static constexpr double kInfinite = __builtin_huge_val();

  static __m256i less(Doubles a, Doubles b) {
    return masks32({_mm256_cmp_pd(a.low, b.low, _CMP_LT_OQ), _mm256_cmp_pd(a.high, b.high, _CMP_LT_OQ)});
  }

  // The candidates of both quantisers, as `Candidates` of the portable search are found.
  void find_candidates(int64_t c) {
    const TrellisRow& row = *row_;
    const double value = static_cast<double>(row.values[c]), magnitude = __builtin_fabs(value);
    const double weight = row.importance ? static_cast<double>(row.importance[c]) : 1.0;
    const bool is_kept = !row.kept || row.kept[c];
    const int last0 = is_kept ? row.most / 2 : 0, last1 = is_kept ? (row.most + 1) / 2 : 0;
    const double place0 = magnitude / 2, place1 = (magnitude + 1) / 2;
    const int below0 = place0 < last0 ? static_cast<int>(place0) : last0;
    const int below1 = place1 < last1 ? static_cast<int>(place1) : last1;
    const __m256i below = _mm256_setr_m128i(_mm_set1_epi32(below0), _mm_set1_epi32(below1));
    const __m256i last = _mm256_setr_m128i(_mm_set1_epi32(last0), _mm_set1_epi32(last1));
    const __m256i parity = _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1), two = _mm256_set1_epi32(2);
    const __m256i quantiser = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), zero = _mm256_setzero_si256();
    const __m256i is_other = _mm256_and_si256(_mm256_xor_si256(below, parity), _mm256_set1_epi32(1));
    __m256i symbol = _mm256_add_epi32(below, is_other);
    symbol = _mm256_sub_epi32(symbol, _mm256_and_si256(_mm256_cmpgt_epi32(symbol, last), two));
    symbol = _mm256_sub_epi32(symbol, _mm256_setr_epi32(0, 0, 2, 2, 0, 0, 2, 2));
    const __m256i is_positive = _mm256_cmpgt_epi32(symbol, zero), is_none = _mm256_cmpgt_epi32(zero, symbol);
    const __m256i odd = _mm256_and_si256(quantiser, is_positive);
    const __m256i point = _mm256_sub_epi32(_mm256_add_epi32(symbol, symbol), odd);
    const __m256i sign = _mm256_set1_epi32(value < 0 ? -1 : 1);
    candidate_symbols_ = _mm256_sign_epi32(_mm256_andnot_si256(is_none, symbol), sign);
    __m256i coded = _mm256_sra_epi32(candidate_symbols_, _mm_cvtsi32_si128(row.low_bits));
    const __m256i is_exception = _mm256_or_si256(_mm256_cmpgt_epi32(coded, _mm256_set1_epi32(127)),
                                                 _mm256_cmpgt_epi32(_mm256_set1_epi32(-128), coded));
    candidate_coded_ = _mm256_andnot_si256(is_exception, coded);
    const __m256d wide = _mm256_set1_pd(magnitude), weights = _mm256_set1_pd(weight);
    const __m256d exception_cost = _mm256_set1_pd(row.exception_cost), infinite = _mm256_set1_pd(kInfinite);
    const auto penalty = [&](__m128i points, __m128i exceptions, __m128i none) {
      const __m256d distance = _mm256_sub_pd(wide, _mm256_cvtepi32_pd(points));
      const __m256d error = _mm256_mul_pd(_mm256_mul_pd(weights, distance), distance);
      const __m256d more = _mm256_and_pd(_mm256_castsi256_pd(_mm256_cvtepi32_epi64(exceptions)), exception_cost);
      return _mm256_blendv_pd(_mm256_add_pd(error, more), infinite, _mm256_castsi256_pd(_mm256_cvtepi32_epi64(none)));
    };
    penalty_.low =
        penalty(_mm256_castsi256_si128(point), _mm256_castsi256_si128(is_exception), _mm256_castsi256_si128(is_none));
    penalty_.high = penalty(_mm256_extracti128_si256(point, 1), _mm256_extracti128_si256(is_exception, 1),
                            _mm256_extracti128_si256(is_none, 1));
  }

  // Where the costs of the next symbol begin after each state, by the symbol that led there.
  __m256i places_of(int64_t c) const {
    const TrellisRow& row = *row_;
    const int y = class_of(row.row_class, row.column_classes ? row.column_classes[c] : 0, row.num_classes);
    const ClassTables& tables = row.classes[y];
    const __m256i magnitude = _mm256_abs_epi32(coded_);
    const __m256i bin = _mm256_add_epi32(_mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(tables.t1 - 1)),
                                         _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(tables.t2 - 1)));  // -bin
    const __m256i is_negative = _mm256_srai_epi32(coded_, 31);
    // 2 + bin, or 2 - bin after a negative symbol.
    const __m256i signed_bin = _mm256_sub_epi32(_mm256_xor_si256(bin, is_negative), is_negative);
    const __m256i context = _mm256_sub_epi32(_mm256_set1_epi32(2), signed_bin);
    const __m256i even = _mm256_load_si256(reinterpret_cast<const __m256i*>(tables.place[0]));
    const __m256i odd = _mm256_load_si256(reinterpret_cast<const __m256i*>(tables.place[1]));
    return _mm256_blend_epi32(_mm256_permutevar8x32_epi32(even, context), _mm256_permutevar8x32_epi32(odd, context),
                              0xaa);
  }

  void add_rate(__m256i places, __m256i candidates, Doubles* cost) const {
    const __m256i coded = _mm256_permutevar8x32_epi32(candidate_coded_, candidates);
    const __m256 bits = _mm256_i32gather_ps(row_->bits, _mm256_add_epi32(places, coded), 4);
    const __m256d price = _mm256_set1_pd(row_->rate_weight);
    cost->low = _mm256_add_pd(cost->low, _mm256_mul_pd(price, _mm256_cvtps_pd(_mm256_castps256_ps128(bits))));
    cost->high = _mm256_add_pd(cost->high, _mm256_mul_pd(price, _mm256_cvtps_pd(_mm256_extractf128_ps(bits, 1))));
  }

  TrellisRow* row_;
  Doubles cost_, penalty_{};
  __m256i coded_ = _mm256_setzero_si256();           // the last symbol of each state, as contexts see it
  __m256i candidate_symbols_{}, candidate_coded_{};  // of quantiser 0 and 1: nearest even and odd, inner even and odd
};

template <bool Rates>
void search(TrellisRow* rows, int count) {
  Row first(rows), second(rows + count - 1);
  const int64_t columns = rows->columns;
  if (count == 1) {
    for (int64_t c = 0; c < columns; ++c) first.step<Rates>(c);
  } else {
    for (int64_t c = 0; c < columns; ++c) {
      first.step<Rates>(c);
      second.step<Rates>(c);
    }
    second.trace_back();
  }
  first.trace_back();
}

}  // namespace

void search_rows_avx2(TrellisRow* rows, int count) {
  if (rows->bits)
    search<true>(rows, count);
  else
    search<false>(rows, count);
}

}  // namespace toolkit::wide

#endif
