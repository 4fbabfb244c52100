// The block decoder of a warp: 32 lanes of interleaved rANS (FORMAT.md 2.6), each lane a thread.
// SPDX-License-Identifier: Apache-2.0
//
// Code words come through a ring in shared memory that the warp fills 256 bytes at a time, one chunk ahead of need in
// registers. Symbols go to a tile in shared memory, 32 bytes a lane, which put_tile writes out. No value that is read
// from the blob becomes an address without a mask or a comparison before.
#ifndef TOOLKIT_CUDA_WARP_BLOCK_H
#define TOOLKIT_CUDA_WARP_BLOCK_H

#include <type_traits>

#include "decode_launch.h"
#include "warp_epilogue.h"
#include "warp_lookup.h"
#include "warp_policy.h"
#include "wide_step.h"

namespace toolkit::cuda {

// Where a warp works: the launch's tables, in shared or global memory, and its own part of shared memory.
struct WarpMemory {
  const uint8_t* records;
  const uint8_t* tables;
  uint16_t* ring;  // kRingWords
  uint32_t* tile;  // 32 * kTilePitch
};

// Code words of one block, through the ring. `at` and `filled` count words from the first one loaded.
template <class W>
struct WordRing {
  const DecodeLaunch& launch;
  uint16_t* ring;
  uint64_t first_unit;
  uint32_t at, filled;
  typename W::template PerLane<Bytes8> ahead;

  TK_WARP WordRing(const W& warp, const DecodeLaunch& from, uint16_t* memory, uint64_t first_word)
      : launch(from), ring(memory), first_unit(first_word / 4), at(static_cast<uint32_t>(first_word % 4)), filled(0) {
    warp.sync();
    load(warp);
    store(warp);
    load(warp);
    store(warp);
    load(warp);
    warp.sync();
  }

  // Afterwards kChunkWords words or more are in the ring.
  TK_WARP void top_up(const W& warp) {
    if (filled - at > kChunkWords) return;
    warp.sync();
    store(warp);
    load(warp);
    warp.sync();
  }

  TK_WARP uint32_t word(uint32_t index) const { return ring[index % kRingWords]; }

 private:
  // Words behind the blob's end are zero.
  TK_WARP void load(const W& warp) {
    warp.each([&](int i) {
      const uint64_t unit = first_unit + filled / 4 + static_cast<uint32_t>(i);
      ahead[i] = unit < launch.blob_units ? reinterpret_cast<const Bytes8*>(launch.blob)[unit] : Bytes8{{0, 0}};
    });
  }
  TK_WARP void store(const W& warp) {
    warp.each(
        [&](int i) { reinterpret_cast<Bytes8*>(ring)[filled % kRingWords / 4 + static_cast<uint32_t>(i)] = ahead[i]; });
    filled += kChunkWords;
  }
};

// The part of a launch that a block belongs to; `block` is below launch.num_blocks.
TK_WARP const LaunchPart& part_of(const DecodeLaunch& launch, uint32_t block) {
  uint32_t number = 0;
  while (block >= launch.parts[number].end) ++number;
  return launch.parts[number];
}

// Decodes one block of a part and writes it out. kTrellis: the set is a trellis set, which the launch says too.
template <class Symbol, Layout kLayout, bool kTrellis, class W>
TK_WARP void decode_block(const W& warp, const DecodeLaunch& launch, const LaunchPart& part, const BlockJob& job,
                          const WarpMemory& memory) {
  constexpr bool kWide = sizeof(Symbol) == 2;
  constexpr uint32_t kGroup = 4 / sizeof(Symbol);  // steps whose symbols make a word of the tile
  static_assert(kGroup * (kWide ? 2 : 1) * kWarpLanes <= kChunkWords, "a group takes no more words than top_up gives");
  const TensorJob& t = launch.tensors[job.tensor];
  const uint32_t columns = t.c;
  const bool contexts = launch.contexts, col_classes = launch.columns;
  const int low_bits = launch.low_bits;
  // Kept in a register: the compiler must take it that stores change what lies in memory.
  const int8_t* const class_c = launch.classes_of_axes + (col_classes ? t.class_c : 0);

  typename W::template PerLane<uint32_t> x, packed, steps, a, b, rows;
  typename W::template PerLane<int> previous, state, row_class, next_class;
  typename W::template PerLane<Bytes8> tables, second_tables;
  typename W::template PerLane<bool> needs;

  // Reads the class of the lane's next row, one row ahead of its use.
  const auto fetch_row_class = [&](int i) {
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
  };
  const auto choose_record = [&](int i, int col_class) {
    const uint8_t* const record =
        memory.records + wide::class_of(row_class[i], col_class, launch.classes) * kRecordBytes;
    tables[i] = *reinterpret_cast<const Bytes8*>(record);
    if constexpr (kTrellis) second_tables[i] = *reinterpret_cast<const Bytes8*>(record + 8);
  };
  const auto begin_row = [&](int i) {
    previous[i] = 0;
    state[i] = 0;
    row_class[i] = next_class[i];
    if (!col_classes) choose_record(i, 0);
    fetch_row_class(i);
  };

  warp.each([&](int i) {
    const uint32_t lane = job.lane + static_cast<uint32_t>(i);
    steps[i] = steps_of_lane(t, lane);
    const bool present = lane < t.num_lanes;
    const uint32_t first_row = present ? lane * t.rows_per_lane : 0;
    rows[i] = present ? lesser(t.rows_per_lane, t.rows - first_row) : 0;
    a[i] = first_row / t.b;
    b[i] = first_row % t.b;
    const uint64_t at = launch.states_at + 2 * (static_cast<uint64_t>(t.first_lane) + lane);
    x[i] = present ? launch.blob[at] | static_cast<uint32_t>(launch.blob[at + 1]) << 16 : 1u << 16;
    packed[i] = 0;
    fetch_row_class(i);
    begin_row(i);
  });
  const uint32_t most = steps_of_lane(t, job.lane), least = steps_of_lane(t, job.lane + kWarpLanes - 1);
  const uint64_t first_word = launch.words_at + job.begin;
  WordRing<W> words(warp, launch, memory.ring, first_word);
  const uint32_t end = words.at + job.length;
  bool good = true;

  // Lanes whose state has become small take the next words in their order.
  const auto refill = [&] {
    const uint32_t mask = warp.ballot([&](int i) { return needs[i]; });
    warp.each([&](int i) {
      // Loaded by every lane: a branch would cost more.
      const uint32_t index = words.at + static_cast<uint32_t>(count_bits(mask & lanes_below(i)));
      const uint32_t longer = wide::with_word(x[i], words.word(index));
      x[i] = needs[i] ? longer : x[i];
    });
    words.at += static_cast<uint32_t>(count_bits(mask));
  };

  uint32_t column = 0;
  int col_class = col_classes ? class_c[0] : 0;
  const auto decode_step = [&](auto all, uint32_t step) {
    constexpr bool kAll = decltype(all)::value;  // every lane has this step
    if (column == columns) {
      column = 0;
      warp.each(begin_row);
    }
    ++column;
    const int this_class = col_class;
    if (col_classes) col_class = class_c[column == columns ? 0 : column];
    warp.each([&](int i) {
      needs[i] = false;
      if (!kAll && step >= steps[i]) return;
      if (col_classes) choose_record(i, this_class);
      int z = 0;
      if (contexts) z = wide::context_of(previous[i], byte_of(tables[i], 5), byte_of(tables[i], 6));
      const Bytes8* of_quantiser = &tables[i];
      if constexpr (kTrellis) of_quantiser = state[i] & 1 ? &second_tables[i] : of_quantiser;
      const uint32_t table = byte_of(*of_quantiser, z);
      previous[i] = pop_from<kLayout>(memory.tables + table * launch.table_stride, launch.entries_at, &x[i]);
      needs[i] = wide::needs_word(x[i]);
    });
    refill();
    typename W::template PerLane<int> symbol;
    warp.each([&](int i) { symbol[i] = previous[i]; });
    if (kWide && low_bits) {
      warp.each([&](int i) {
        needs[i] = false;
        if (!kAll && step >= steps[i]) return;
        symbol[i] = wide::join_low_bits(previous[i], low_bits, &x[i]);
        needs[i] = wide::needs_word(x[i]);
      });
      refill();
    }
    warp.each([&](int i) {
      const int value = kTrellis ? wide::trellis_integer(symbol[i], &state[i]) : symbol[i];
      packed[i] = kWide ? push_half(packed[i], value) : push_byte(packed[i], value);
    });
  };

  uint32_t tile_begin = 0;
  const auto put = [&](uint32_t tile_end) {
    warp.sync();
    good = put_tile_of_kind<Symbol>(warp, part, t, {job.lane, tile_begin, tile_end - tile_begin}, memory.tile) && good;
    warp.sync();
    tile_begin = tile_end;
  };
  for (uint32_t step = 0; step < most; step += kGroup) {
    words.top_up(warp);
    if (step + kGroup <= least) {
#if defined(__CUDACC__)
#pragma unroll
#endif
      for (uint32_t j = 0; j < kGroup; ++j) decode_step(std::true_type(), step + j);
    } else {
      for (uint32_t j = 0; j < kGroup; ++j) decode_step(std::false_type(), step + j);
    }
    const uint32_t word = step / kGroup % kTileWords;
    warp.each([&](int i) { memory.tile[static_cast<uint32_t>(i) * kTilePitch + word] = packed[i]; });
    if (word == kTileWords - 1) put(step + kGroup);
  }
  if (tile_begin < most) put(most);

  const uint32_t wrong = warp.ballot([&](int i) { return x[i] != 1u << 16; });
  if (wrong != 0 || words.at != end || !good) warp.report(part.status, kStreamError);
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_BLOCK_H
