// Decoding of tensors: jobs for the block decoders, threads over blocks, exceptions.
// SPDX-License-Identifier: Apache-2.0
#include "wide_decode.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <tuple>
#include <utility>
#include <vector>

#include "threads.h"
#include "wide_kernels.h"
#include "wide_step.h"

namespace toolkit::wide {

tk_isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
      __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("bmi2"))
    return TK_ISA_AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return TK_ISA_AVX2;
#endif
  return TK_ISA_PORTABLE;
}

namespace {

Kernels kernels_for(tk_isa isa) {
  const tk_isa best = best_isa();
  if (isa == TK_ISA_AUTO || isa > best) isa = best;
#if defined(__x86_64__)
  if (isa == TK_ISA_AVX512) return kernels_avx512();
  if (isa == TK_ISA_AVX2) return kernels_avx2();
#endif
  return kernels_portable();
}

// A block and where its first lane goes.
struct Piece {
  const Tensor* tensor;
  int64_t block;  // of the tensor
  char* out;
  int64_t lane_stride;
};

Mode mode_of(const Segment& s, const Tensor& t) {
  const TableSet& set = s.sets[static_cast<size_t>(t.set)];
  if (set.quantisers > 1) return set.contexts > 1 ? Mode::kTrellisContexts : Mode::kTrellis;
  if (set.contexts > 1) return Mode::kContexts;
  return has_one_table(set, t) ? Mode::kOne : Mode::kClasses;
}

// What a block needs beside the segment; the memory is used again from block to block.
struct Scratch {
  std::vector<int8_t> row_class;
};

const SearchTree* tree_of(const Segment& s, const Tensor& t) {
  const TableSet& set = s.sets[static_cast<size_t>(t.set)];
  return has_one_table(set, t) ? s.trees[only_table(set, t)].get() : nullptr;
}

// What blocks must have in common to be decoded side by side: mode, columns with classes, the way to find symbols.
using Way = std::tuple<Mode, bool, int, bool>;
Way way_of(const Segment& s, const Tensor& t) {
  const SearchForest* const forest = s.sets[static_cast<size_t>(t.set)].forest.get();
  return {mode_of(s, t), t.class_c != nullptr, forest ? forest->kind() : 0, tree_of(s, t) != nullptr};
}

BlockJob make_job(const Segment& s, const Piece& piece, Scratch* scratch) {
  BlockJob job;
  const Tensor& t = *piece.tensor;
  const int64_t lane = piece.block * kLanes;  // of the tensor
  const int64_t lanes = std::min<int64_t>(kLanes, t.num_lanes - lane);
  const auto block = static_cast<size_t>(t.first_block + piece.block);
  job.set = &s.sets[static_cast<size_t>(t.set)];
  job.words = s.words + s.block_begin[block];
  job.words_end = s.words + s.block_begin[block + 1];
  job.readable_end = s.readable_end;
  job.states = s.states + 2 * (t.first_lane + lane);
  job.lanes = static_cast<int>(lanes);
  job.mode = mode_of(s, t);
  job.low_bits = t.low_bits;
  job.columns = t.c;
  job.rows = t.k;
  job.last_rows = lane + lanes == t.num_lanes ? t.rows() - (t.num_lanes - 1) * t.k : t.k;
  // A block whose only lane is the short one has only that lane's rows.
  if (job.lanes == 1) job.rows = job.last_rows;
  // Where all symbols have the same table, nothing happens between rows.
  if (job.mode == Mode::kOne && job.rows == job.last_rows) {
    job.columns *= job.rows;
    job.rows = job.last_rows = 1;
  }
  job.col_class = t.class_c;
  job.forest = job.set->forest.get();
  job.tree = tree_of(s, t);
  auto& rows = scratch->row_class;
  const bool rows_differ = t.class_a || t.class_b;
  job.row_step = rows_differ ? kLanes : 0;
  rows.assign(static_cast<size_t>(rows_differ ? job.rows * kLanes : kLanes), row_class_of(t.base));
  if (rows_differ) {
    for (int64_t i = 0; i < lanes; ++i) {
      const int64_t first = (lane + i) * t.k, count = i + 1 < lanes ? job.rows : job.last_rows;
      int64_t a = first / t.b, b = first % t.b;
      for (int64_t r = 0; r < count; ++r) {
        const int y = t.base + (t.class_a ? t.class_a[a] : 0) + (t.class_b ? t.class_b[b] : 0);
        rows[static_cast<size_t>(r * kLanes + i)] = row_class_of(y);
        if (++b == t.b) b = 0, ++a;
      }
    }
  }
  job.row_class = rows.data();
  job.out = piece.out;
  job.lane_stride = piece.lane_stride;
  return job;
}

void add_pieces(const Segment& s, const Tensor& t, void* out, int64_t lane_stride, int64_t first_block,
                int64_t end_block, std::vector<Piece>* pieces) {
  const int64_t block_bytes = kLanes * lane_stride * (s.wide ? 2 : 1);
  for (int64_t b = first_block; b < end_block; ++b)
    pieces->push_back({&t, b, static_cast<char*>(out) + (b - first_block) * block_bytes, lane_stride});
}

// Zeros behind the end of every lane of the matrix.
void clear_behind_lanes(const Segment& s, const Tensor& t, char* out) {
  const int64_t size = s.wide ? 2 : 1;
  for (int64_t lane = 0; lane < t.num_lanes; ++lane) {
    const int64_t rows = lane + 1 < t.num_lanes ? t.k : t.rows() - lane * t.k;
    std::memset(out + (lane * s.num_steps + rows * t.c) * size, 0,
                static_cast<size_t>((s.num_steps - rows * t.c) * size));
  }
}

// Pieces that go the same way, dealt out to the threads like cards.
struct Stretch {
  size_t begin, end;
  std::vector<std::atomic<size_t>> next;  // of each thread

  Stretch(size_t first, size_t last, int threads) : begin(first), end(last), next(static_cast<size_t>(threads)) {
    for (size_t i = first; i < first + next.size(); ++i) next[i % next.size()] = i;
  }

  // How many pieces thread `t` has left.
  size_t left(size_t t) const {
    const size_t at = next[t];
    return at < end ? (end - at + next.size() - 1) / next.size() : 0;
  }

  // Takes one of the pieces of thread `t`; `end` where there are none.
  size_t take(size_t t) { return left(t) ? std::min(end, next[t].fetch_add(next.size())) : end; }
};

tk_status decode_pieces(const Segment& s, std::vector<Piece> pieces, int threads, tk_isa isa) {
  const Kernels kernels = kernels_for(isa);
  const DecodeBlocks decode = s.wide ? kernels.wide : kernels.narrow;
  // The longest come first, so that all threads have about the same to do, and end with short ones.
  std::stable_sort(pieces.begin(), pieces.end(), [&](const Piece& p, const Piece& q) {
    const auto key = [&](const Tensor& t) { return std::tuple(way_of(s, t), -t.lane_stride()); };
    return key(*p.tensor) < key(*q.tensor);
  });
  const int workers = worker_count(static_cast<int64_t>(pieces.size()), threads);
  std::deque<Stretch> stretches;
  for (size_t i = 0, begin = 0; i < pieces.size(); ++i) {
    if (i + 1 < pieces.size() && way_of(s, *pieces[i].tensor) == way_of(s, *pieces[i + 1].tensor)) continue;
    stretches.emplace_back(begin, i + 1, workers);
    begin = i + 1;
  }
  std::atomic<bool> good{true};
  const auto decode_some = [&](Stretch* stretch, size_t thread) {
    Scratch scratch[kMaxSeats];
    const auto next = [&](int seat, BlockJob* job) {
      const size_t i = good ? stretch->take(thread) : stretch->end;
      if (i == stretch->end) return false;
      *job = make_job(s, pieces[i], &scratch[seat]);
      return true;
    };
    const auto seats = static_cast<int>(std::min<size_t>(stretch->left(thread), kMaxSeats));
    if (seats > 0 && !decode(seats, next)) good = false;
  };
  parallel_for(workers, workers, [&](int64_t begin, int64_t end) {
    for (auto thread = static_cast<size_t>(begin); thread < static_cast<size_t>(end); ++thread) {
      for (Stretch& stretch : stretches) decode_some(&stretch, thread);
      // Whoever has nothing left helps those that are slower. Not before: a few blocks too many side by side would end
      // later than the others' last ones.
      for (Stretch& stretch : stretches)
        for (size_t other = 0; other < stretch.next.size(); ++other) decode_some(&stretch, other);
    }
  });
  return good ? TK_OK : TK_ERR_STREAM;
}

}  // namespace

tk_status decode_lanes(const Segment& s, const Tensor& t, void* out, int64_t lane_stride, int64_t first_block,
                       int64_t end_block, int threads, tk_isa isa) {
  std::vector<Piece> pieces;
  add_pieces(s, t, out, lane_stride, first_block, end_block, &pieces);
  return decode_pieces(s, std::move(pieces), threads, isa);
}

void apply_exceptions(const Segment& s, const Tensor& t, void* out, int64_t lane_stride, int64_t first_lane,
                      int64_t end_lane) {
  const auto steps = static_cast<uint64_t>(s.num_steps);
  const uint64_t first = static_cast<uint64_t>(t.first_lane + first_lane) * steps;
  const uint64_t last = static_cast<uint64_t>(t.first_lane + std::min(end_lane, t.num_lanes)) * steps;
  auto* const symbols = static_cast<int16_t*>(out);
  auto e = std::lower_bound(s.exceptions.begin(), s.exceptions.end(), first,
                            [](const Exception& a, uint64_t index) { return a.index < index; });
  for (; e != s.exceptions.end() && e->index < last; ++e) {
    const uint64_t at = e->index - first;
    symbols[static_cast<int64_t>(at / steps) * lane_stride + static_cast<int64_t>(at % steps)] = e->value;
  }
}

tk_status decode_tensor(const Segment& s, const Tensor& t, void* out, int threads, tk_isa isa) {
  if (tk_status status = decode_lanes(s, t, out, t.lane_stride(), 0, t.num_blocks, threads, isa)) return status;
  if (s.wide) apply_exceptions(s, t, out, t.lane_stride(), 0, t.num_lanes);
  return TK_OK;
}

tk_status decode_tensors(const Segment& s, void* out, int threads, tk_isa isa) {
  const int64_t size = s.wide ? 2 : 1;
  std::vector<Piece> pieces;
  std::vector<char*> places;
  auto* to = static_cast<char*>(out);
  for (const Tensor& t : s.tensors) {
    places.push_back(to);
    add_pieces(s, t, to, t.lane_stride(), 0, t.num_blocks, &pieces);
    to += t.size() * size;
  }
  if (tk_status status = decode_pieces(s, std::move(pieces), threads, isa)) return status;
  if (s.wide)
    for (size_t i = 0; i < places.size(); ++i)
      apply_exceptions(s, s.tensors[i], places[i], s.tensors[i].lane_stride(), 0, s.tensors[i].num_lanes);
  return TK_OK;
}

tk_status decode_all(const Segment& s, void* out, int threads, tk_isa isa) {
  const int64_t size = s.wide ? 2 : 1;
  std::vector<Piece> pieces;
  const auto place = [&](const Tensor& t) { return static_cast<char*>(out) + t.first_lane * s.num_steps * size; };
  for (const Tensor& t : s.tensors) {
    add_pieces(s, t, place(t), s.num_steps, 0, t.num_blocks, &pieces);
    clear_behind_lanes(s, t, place(t));
  }
  if (tk_status status = decode_pieces(s, std::move(pieces), threads, isa)) return status;
  if (s.wide)
    for (const Tensor& t : s.tensors) apply_exceptions(s, t, place(t), s.num_steps, 0, t.num_lanes);
  return TK_OK;
}

}  // namespace toolkit::wide
