// AVX-512: runs several blocks side by side, whatever the way to find a symbol (the core).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_AVX512_BLOCK_H
#define TOOLKIT_WIDE_AVX512_BLOCK_H

#include <cstring>

#include "wide_avx512_line.h"

namespace toolkit::wide {
namespace {

// What every core keeps of a block in registers while a run of steps lasts.
struct HotBase {
  const uint16_t* p;
  __m256i previous;  // 32 x int8, previous symbols
  __m256i trellis;   // 32 x int8, states of trellis sets; the highest bit says the quantiser
};

// What a run of steps within a row does not change.
struct RowBase {
  const int8_t* col_class;
  __m256i classes;  // 32 x int8, row classes
  Choice choice;    // of all steps, where columns have no classes
  __mmask32 active;
  int low_bits;
};

// What an idle seat reads.
struct Nothing {
  alignas(64) uint16_t words[2 * kLanes] = {};
  int8_t col_class[kLineBytes] = {};
};
inline constexpr Nothing kNothing;

// A place for a block in the making. A core has
//   kWide: 16-bit symbols with raw low bits;
//   kSeats: blocks that it runs side by side, at most kMaxSeats;
//   Hot, Row: HotBase and RowBase and what it needs beside them;
//   load_states, resting, start, start_row, steps.
template <class Core>
struct Seat {
  using TheLine = Line<Core::kWide>;
  // A step loads so many words from where the pointer stands, for symbols and for raw bits.
  static constexpr int64_t kStepWords = Core::kWide ? 2 * kLanes : kLanes;

  BlockJob job;
  Classes classes;
  typename Core::Hot hot;
  typename Core::Row row;
  int64_t column, row_index, step, steps;
  const uint16_t* limit;      // loads stay below
  const uint16_t* tail_from;  // of what `tail` is a copy, or null
  int64_t tail_words;         // of the copy
  bool busy, sound;
  TheLine line;
  // Near the end of readable memory the words are copied to here, where the loads of a line may run past them.
  uint16_t tail[kStepWords * (TheLine::kSteps + 2)];

  void load_row() {
    const auto* from = reinterpret_cast<const __m256i*>(job.row_class + row_index * job.row_step);
    row.classes = _mm256_loadu_si256(from);
    if (!row.col_class) {
      row.choice = choose_row(job.mode, classes, row.classes);
      if (!has_history(job.mode)) Core::start_row(&row);
    }
    hot.previous = hot.trellis = _mm256_setzero_si256();
    const int lanes = row_index < job.last_rows ? job.lanes : job.lanes - 1;
    const __mmask32 before = row.active;
    row.active = lanes == kLanes ? ~__mmask32{0} : (__mmask32{1} << lanes) - 1;
    // Lanes that end here: nobody keeps their states.
    if (row_index > 0) rest(before & ~row.active);
  }

  // The lanes of `mask` have reached their ends.
  void rest(__mmask32 mask) { sound = sound && (Core::resting(hot) & mask) == mask; }

  void start() {
    classes = load_classes(*job.set, Core::map_of(job));
    row.col_class = job.col_class;
    row.low_bits = job.low_bits;
    row.active = 0;
    alignas(64) uint32_t x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = i < job.lanes ? load_u32(job.states + 2 * i) : kStateLow;
    hot.p = job.words;
    limit = job.readable_end;
    tail_from = nullptr;
    Core::load_states(x, &hot);
    Core::start(job, &row);
    column = row_index = step = 0;
    steps = job.rows * job.columns;
    busy = sound = true;
    load_row();
  }

  // Idle from the beginning: steps need something to work on.
  void idle_like(const Seat& other) {
    classes = other.classes;
    hot = other.hot;
    row = other.row;
    sound = true;
    stop();
  }

  // From now on steps do nothing that matters.
  void stop() {
    busy = false;
    row.active = 0;
    if (row.col_class) row.col_class = kNothing.col_class;
    hot.p = kNothing.words;
    column = step = 0;
  }

  // How many steps may run before the row ends or the words could run out; 0: they could now.
  int64_t run_length() const {
    if (!busy) return TheLine::kSteps;
    return std::min(job.columns - column, (limit - hot.p) / kStepWords);
  }

  // Makes room for loads past the last words, fewer than kStepWords.
  void enter_tail() {
    tail_from = hot.p;
    tail_words = std::max<int64_t>(job.words_end - hot.p, 0);
    std::memset(tail, 0, sizeof(tail));
    std::memcpy(tail, hot.p, static_cast<size_t>(tail_words) * sizeof(uint16_t));
    hot.p = tail;
    limit = tail + sizeof(tail) / sizeof(*tail);
  }

  // After `n` steps, which end at place `phase` of the line.
  void after_steps(int64_t n, int64_t phase) {
    if (!busy) return;
    step += n;
    column += n;
    if (tail_from && hot.p > tail + tail_words) {
      // The stream ends too early.
      sound = false;
      return;
    }
    if (phase == TheLine::kSteps || step == steps) line.write(job, step, phase);
    if (step == steps) {
      rest(row.active);
      const uint16_t* const end = tail_from ? tail_from + (hot.p - tail) : hot.p;
      sound = sound && end == job.words_end;
      stop();
    } else if (column == job.columns) {
      column = 0;
      ++row_index;
      load_row();
    }
  }
};

// The tables of a seat's lanes, `c` columns after where its run of steps began.
template <Mode M, bool Columns, class Core>
TK_INLINE __m256i table_in_step(const Seat<Core>& s, const HotBase& h, int64_t c) {
  if constexpr (Columns) {
    const __m256i column = _mm256_set1_epi8(s.row.col_class[s.column + c]);
    return table_after<M>(choose<M>(s.classes, s.row.classes, column), h.previous, h.trellis);
  } else {
    return table_after<M>(s.row.choice, h.previous, h.trellis);
  }
}

// Runs seats for `n` steps, within a row of each and a line.
template <class Core, Mode M, bool Columns, int Count>
TK_INLINE void run_steps(Seat<Core>* s, int64_t phase, int64_t n) {
  const typename Core::Constants k;
  // Local copies, so that the compiler keeps them in registers.
  typename Core::Hot hot[Count];
  for (int i = 0; i < Count; ++i) hot[i] = s[i].hot;
  for (int64_t at = phase; at < phase + n; ++at) Core::template step<M, Columns, Count>(k, s, hot, at - phase, at);
  for (int i = 0; i < Count; ++i) s[i].hot = hot[i];
}

// Decodes side by side in the first Count seats, until no more than Enough are busy and there are no more jobs.
// `seats`: the most to take.
template <class Core, Mode M, bool Columns, int Count, int Enough>
bool run_together(Seat<Core>* s, int seats, int64_t* phase, bool* more, const NextJob& next) {
  constexpr int64_t full = Line<Core::kWide>::kSteps;
  for (;;) {
    int busy = 0;
    for (int i = 0; i < Count; ++i) busy += s[i].busy;
    if (busy == 0) *phase = 0;
    if (*phase == 0 && *more) {
      for (int i = 0; i < std::min(seats, Count) && *more; ++i) {
        if (s[i].busy) continue;
        *more = next(i, &s[i].job);
        if (*more) s[i].start(), ++busy;
      }
    }
    if (busy <= Enough && !*more) return true;
    int64_t n = full - *phase;
    for (int i = 0; i < Count; ++i) {
      if (s[i].run_length() == 0) s[i].enter_tail();
      n = std::min(n, s[i].run_length());
    }
    run_steps<Core, M, Columns, Count>(s, *phase, n);
    *phase += n;
    for (int i = 0; i < Count; ++i) {
      s[i].after_steps(n, *phase);
      if (!s[i].sound) return false;
    }
    if (*phase == full) *phase = 0;
  }
}

// Moves busy seats before idle ones.
template <class Core>
void close_ranks(Seat<Core>* s, int count) {
  int to = 0;
  for (int i = 0; i < count; ++i) {
    if (!s[i].busy) continue;
    if (i != to) {
      s[to] = s[i];
      if (s[to].tail_from) {
        s[to].hot.p = s[to].tail + (s[i].hot.p - s[i].tail);
        s[to].limit = s[to].tail + (s[i].limit - s[i].tail);
      }
      s[i].busy = false;
    }
    ++to;
  }
  for (int i = to; i < count; ++i) s[i].stop();
}

template <class Core, Mode M, bool Columns, int Count>
bool decode_in_seats(Seat<Core>* s, int seats, int64_t* phase, bool* more, const NextJob& next) {
  constexpr int kFewer = Count / 2;
  if (seats > kFewer) {
    if (!run_together<Core, M, Columns, Count, kFewer>(s, seats, phase, more, next)) return false;
    close_ranks(s, Count);
  }
  if constexpr (kFewer > 0) return decode_in_seats<Core, M, Columns, kFewer>(s, seats, phase, more, next);
  return true;
}

template <class Core, Mode M, bool Columns>
bool decode_all_jobs(const BlockJob& first, int seats, const NextJob& next) {
  Seat<Core> s[Core::kSeats];
  s[0].job = first;
  s[0].start();
  // The seats are halved again and again until no more than half of them would stay empty.
  int used = Core::kSeats;
  while (used / 2 >= seats) used /= 2;
  for (int i = 1; i < used; ++i) s[i].idle_like(s[0]);
  int64_t phase = 0;
  bool more = true;
  return decode_in_seats<Core, M, Columns, Core::kSeats>(s, seats, &phase, &more, next);
}

template <class Core, bool Columns>
bool decode_in_mode(const BlockJob& first, int seats, const NextJob& next) {
  switch (first.mode) {
    case Mode::kTrellisContexts:
      return decode_all_jobs<Core, Mode::kTrellisContexts, Columns>(first, seats, next);
    case Mode::kTrellis:
      return decode_all_jobs<Core, Mode::kTrellis, Columns>(first, seats, next);
    case Mode::kContexts:
      return decode_all_jobs<Core, Mode::kContexts, Columns>(first, seats, next);
    default:
      return decode_all_jobs<Core, Mode::kClasses, Columns>(first, seats, next);
  }
}

template <class Core>
bool decode_in_any_mode(const BlockJob& first, int seats, const NextJob& next) {
  return first.col_class ? decode_in_mode<Core, true>(first, seats, next)
                         : decode_in_mode<Core, false>(first, seats, next);
}

}  // namespace
}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_AVX512_BLOCK_H
