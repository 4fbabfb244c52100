// AVX-512: runs one or two blocks side by side, whatever the way to find a symbol (the core).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_AVX512_BLOCK_H
#define TOOLKIT_WIDE_AVX512_BLOCK_H

#include <cstring>

#include "wide_avx512_line.h"

namespace toolkit::wide {
namespace {

// A step loads at most 64 words (32 for the symbol, 32 for raw bits) from where the pointer stands.
inline constexpr int64_t kStepWords = 64;

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

// A block in the making. A core has
//   kWide: 16-bit symbols with raw low bits;
//   Hot, Row: HotBase and RowBase and what it needs beside them;
//   in_steps(mode): whether its steps write to the line themselves, else they go on top of registers that keep()
//   stores; load_states, at_rest, start, start_row, step, keep, keep_partial.
template <class Core>
struct Block {
  const BlockJob* job;
  Classes classes;
  typename Core::Hot hot;
  typename Core::Row row;
  int64_t column, row_index, step, steps;
  Line<Core::kWide> line;

  TK_INLINE void load_row() {
    const auto* from = reinterpret_cast<const __m256i*>(job->row_class + row_index * job->row_step);
    row.classes = _mm256_loadu_si256(from);
    if (!row.col_class) {
      if (job->mode == Mode::kTrellis)
        row.choice = choose<Mode::kTrellis>(classes, row.classes, _mm256_setzero_si256());
      else if (job->mode == Mode::kContexts)
        row.choice = choose<Mode::kContexts>(classes, row.classes, _mm256_setzero_si256());
      else
        row.choice = choose<Mode::kClasses>(classes, row.classes, _mm256_setzero_si256());
      if (!has_contexts(job->mode)) Core::start_row(&row);
    }
    hot.previous = hot.trellis = _mm256_setzero_si256();
    const int lanes = row_index < job->last_rows ? job->lanes : job->lanes - 1;
    row.active = lanes == kLanes ? ~__mmask32{0} : (__mmask32{1} << lanes) - 1;
  }

  void start(const BlockJob* j) {
    job = j;
    classes = load_classes(*j->set, Core::map_of(*j));
    row.col_class = j->col_class;
    row.low_bits = j->low_bits;
    alignas(64) uint32_t x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = i < j->lanes ? load_u32(j->states + 2 * i) : kStateLow;
    hot.p = j->words;
    Core::load_states(x, &hot);
    Core::start(*j, &row);
    column = row_index = step = 0;
    steps = j->rows * j->columns;
    load_row();
  }

  TK_INLINE void flush(int64_t count) {
    if (Core::in_steps(job->mode)) line.gather_steps();
    line.write(*job, step, count);
  }

  TK_INLINE void after_steps(int64_t n) {
    constexpr int64_t full = Line<Core::kWide>::kSteps;
    step += n;
    column += n;
    if (step % full == 0) {
      flush(full);
    } else if (step == steps) {
      if (!Core::in_steps(job->mode)) Core::keep_partial(hot, step, &line);
      flush(step % full);
    }
    if (column == job->columns && step < steps) {
      column = 0;
      ++row_index;
      load_row();
    }
  }

  bool finished() const { return hot.p == job->words_end && Core::at_rest(hot); }

  // How many steps may run before the row ends, the line is full or the words could run out; 0: they could now.
  int64_t run_length() const {
    const int64_t room = (job->readable_end - hot.p) / kStepWords;
    return std::min({job->columns - column, Line<Core::kWide>::kSteps - step % Line<Core::kWide>::kSteps, room});
  }
};

// Runs Count blocks, 1 or 2, for `n` steps: within a row and a line of each.
template <class Core, bool Full, Mode M, bool Columns, int Count>
TK_INLINE void run_steps(Block<Core>* s, int64_t n) {
  constexpr int per = Line<Core::kWide>::kPerWord;
  const typename Core::Constants k;
  // Local copies, so that the compiler keeps them in registers.
  typename Core::Hot a = s[0].hot, b = s[Count - 1].hot;
  const Classes classes_a = s[0].classes, classes_b = s[Count - 1].classes;
  const typename Core::Row row_a = s[0].row, row_b = s[Count - 1].row;
  const int64_t column_a = s[0].column, column_b = s[Count - 1].column, step = s[0].step;
  for (int64_t i = 0; i < n; ++i) {
    Core::template step<Full, M, Columns>(k, classes_a, row_a, column_a + i, a, s[0].line.step_of(step + i));
    if constexpr (Count == 2)
      Core::template step<Full, M, Columns>(k, classes_b, row_b, column_b + i, b, s[1].line.step_of(step + i));
    if (!Core::in_steps(M) && (step + i + 1) % per == 0) {
      Core::keep(a, s[0].line.element_of(step + i));
      if constexpr (Count == 2) Core::keep(b, s[1].line.element_of(step + i));
    }
  }
  s[0].hot = a;
  if constexpr (Count == 2) s[1].hot = b;
}

// Runs Count blocks until the first of them is done or needs the careful end.
template <class Core, Mode M, bool Columns, int Count>
void run_together(Block<Core>* s) {
  for (;;) {
    int64_t n = INT64_MAX;
    bool full = true;
    for (int b = 0; b < Count; ++b) {
      if (s[b].step == s[b].steps) return;
      n = std::min(n, s[b].run_length());
      full = full && s[b].row.active == ~__mmask32{0};
    }
    if (n == 0) return;
    if (full)
      run_steps<Core, true, M, Columns, Count>(s, n);
    else
      run_steps<Core, false, M, Columns, Count>(s, n);
    for (int b = 0; b < Count; ++b) s[b].after_steps(n);
  }
}

// Near the end of readable memory the words are copied to where loads may run past them. False where a stream ends too
// early, or not as it must.
template <class Core, Mode M, bool Columns>
bool finish(Block<Core>* s) {
  run_together<Core, M, Columns, 1>(s);
  if (s->step < s->steps) {
    // Fewer than kStepWords words are left in all: they, and zeros behind them.
    uint16_t tail[4 * kStepWords] = {};
    const uint16_t* const from = s->hot.p;
    const int64_t left = std::max<int64_t>(s->job->words_end - from, 0);
    if (left >= kStepWords) return false;
    std::memcpy(tail, from, static_cast<size_t>(left) * sizeof(uint16_t));
    s->hot.p = tail;
    while (s->step < s->steps) {
      if (s->hot.p > tail + left) return false;
      // One step at a time: each takes at most kStepWords, which the zeros allow for.
      run_steps<Core, false, M, Columns, 1>(s, 1);
      s->after_steps(1);
    }
    s->hot.p = from + (s->hot.p - tail);
  }
  return s->finished();
}

template <class Core, Mode M, bool Columns>
bool decode_pair(const BlockJob* jobs, int count) {
  Block<Core> s[2];
  for (int i = 0; i < count; ++i) s[i].start(&jobs[i]);
  if (count == 2) run_together<Core, M, Columns, 2>(s);
  bool good = true;
  for (int i = 0; i < count; ++i) good = finish<Core, M, Columns>(&s[i]) && good;
  return good;
}

template <class Core, bool Columns>
bool decode_in_mode(const BlockJob* jobs, int count) {
  switch (jobs[0].mode) {
    case Mode::kTrellis:
      return decode_pair<Core, Mode::kTrellis, Columns>(jobs, count);
    case Mode::kContexts:
      return decode_pair<Core, Mode::kContexts, Columns>(jobs, count);
    default:
      return decode_pair<Core, Mode::kClasses, Columns>(jobs, count);
  }
}

template <class Core>
bool decode_in_any_mode(const BlockJob* jobs, int count) {
  return jobs[0].col_class ? decode_in_mode<Core, true>(jobs, count) : decode_in_mode<Core, false>(jobs, count);
}

}  // namespace
}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_AVX512_BLOCK_H
