// The block decoder of a warp: 32 lanes of interleaved rANS (FORMAT.md 2.6), each lane a thread.
// SPDX-License-Identifier: Apache-2.0
//
// Code words come through a ring in shared memory (warp_ring.h). Symbols go to a tile in shared memory, 32 bytes a
// lane, which is written out when it is full. No value that is read from the blob becomes an address without a mask or
// a comparison before.
#ifndef TOOLKIT_CUDA_WARP_BLOCK_H
#define TOOLKIT_CUDA_WARP_BLOCK_H

#include <type_traits>

#include "decode_launch.h"
#include "warp_epilogue.h"
#include "warp_lookup.h"
#include "warp_policy.h"
#include "warp_ring.h"
#include "warp_rows.h"
#include "warp_tile.h"
#include "wide_step.h"

namespace toolkit::cuda {

// The part of a launch that a block belongs to; `block` is below launch.num_blocks.
TK_WARP const LaunchPart& part_of(const DecodeLaunch& launch, uint32_t block) {
  uint32_t number = 0;
  while (block >= launch.parts[number].end) ++number;
  return launch.parts[number];
}

// Decodes one block of a part and writes it out. The launch says too what kSet says.
template <class Symbol, Layout kLayout, SetKind kSet, class W>
TK_WARP void decode_block(const W& warp, const DecodeLaunch& launch, const LaunchPart& part, const BlockJob& job,
                          const WarpMemory& memory) {
  constexpr bool kWide = sizeof(Symbol) == 2, kTrellis = is_trellis(kSet);
  constexpr uint32_t kGroup = 4 / sizeof(Symbol);  // steps whose symbols make a word of the tile
  static_assert(kGroup * (kWide ? 2 : 1) * kWarpLanes <= kChunkWords, "a group takes no more words than top_up gives");
  const TensorJob& t = launch.tensors[job.tensor];
  const uint32_t first_lane = warp.uniform(job.lane), columns = warp.uniform(t.c);
  const uint32_t most = warp.uniform(steps_of_lane(t, first_lane));
  const uint32_t least = warp.uniform(steps_of_lane(t, first_lane + kWarpLanes - 1));
  const int low_bits = kWide ? launch.low_bits : 0;

  typename W::template PerLane<uint32_t> x, packed, popped, steps;
  typename W::template PerLane<int> state;
  LaneRows<kSet, W> rows(warp, launch, t, first_lane, memory);
  warp.each([&](int i) {
    const uint32_t lane = first_lane + static_cast<uint32_t>(i);
    steps[i] = steps_of_lane(t, lane);
    const uint64_t at = launch.states_at + 2 * (static_cast<uint64_t>(t.first_lane) + lane);
    x[i] = lane < t.num_lanes ? launch.blob[at] | static_cast<uint32_t>(launch.blob[at + 1]) << 16 : 1u << 16;
    packed[i] = 0;
    popped[i] = 0;
    state[i] = 0;
  });
  const uint64_t first_word = launch.words_at + job.begin;
  WordRing<W> words(warp, launch, memory, first_word);
  const uint32_t end = static_cast<uint32_t>(first_word % 4) + job.length;

  // Lanes whose state has become small take the next words in their order. (None of those that have no step any more: a
  // state is never small when its step is over.)
  const auto refill = [&](uint32_t turn) {
    const uint32_t mask = warp.ballot([&](int i) { return !wide::needs_word(x[i]); });
    warp.each([&](int i) { take_word(&x[i], words.word(i, mask, turn)); });
    words.pass(mask);
  };
  const uint32_t turns_of_step = low_bits ? 2 : 1;
  // `all`: every lane has this step, which is the j-th of its group.
  const auto decode_step = [&](auto all, uint32_t step, uint32_t j, int column_class) {
    constexpr bool kAll = decltype(all)::value;
    warp.each([&](int i) {
      if (!kAll && step >= steps[i]) return;
      const uint32_t table = rows.table(i, column_class, symbol_in<kLayout>(popped[i]), state[i] & 1);
      popped[i] = pop_from<kLayout>(memory.tables, memory.tables + launch.entries_at, table, &x[i]);
    });
    refill(j * turns_of_step);
    if constexpr (!kWide && !kTrellis) {
      warp.each([&](int i) { packed[i] = push_byte<kSymbolByte<kLayout>>(packed[i], popped[i]); });
    } else {
      typename W::template PerLane<int> symbol;
      warp.each([&](int i) { symbol[i] = symbol_in<kLayout>(popped[i]); });
      if (low_bits) {
        warp.each([&](int i) {
          if (kAll || step < steps[i]) symbol[i] = wide::join_low_bits(symbol[i], low_bits, &x[i]);
        });
        refill(j * turns_of_step + 1);
      }
      warp.each([&](int i) {
        const auto value = static_cast<uint32_t>(kTrellis ? wide::trellis_integer(symbol[i], &state[i]) : symbol[i]);
        packed[i] = kWide ? push_half(packed[i], value) : push_byte<0>(packed[i], value);
      });
    }
  };
  const auto begin_row = [&] {
    warp.each([&](int i) {
      popped[i] = 0;
      state[i] = 0;
      rows.next_row(i);
    });
  };

  // Puts a word of each lane into the tile.
  uint32_t tile_at = memory.tile;
  const auto stage = [&] {
    words.settle(kGroup * turns_of_step);
    warp.each([&](int i) {
      *reinterpret_cast<uint32_t*>(memory.shared + (tile_at + static_cast<uint32_t>(i) * (kTilePitch * 4))) = packed[i];
    });
    tile_at += 4;
  };

  const TileWriter<Symbol, W> writer(warp, part, t, first_lane, least, memory);
  bool good = true;
  uint32_t step = 0, column = 0;
  // Rows of whole groups are decoded by groups, as long as all lanes have some.
  const uint32_t by_groups = columns % kGroup == 0 ? least : 0;
  uint32_t classes = rows.template classes_at<kGroup>(0);
  begin_row();
  while (step < most) {
    const uint32_t tile_begin = step, tile_end = step + kGroup * kTileWords;
    while (step < lesser(by_groups, tile_end)) {
      if (column == columns) {
        column = 0;
        begin_row();
      }
      const uint32_t stop = lesser(step + (columns - column), tile_end);
      do {
        words.top_up(warp);
        column += kGroup;
        const uint32_t now = classes;
        classes = rows.template classes_at<kGroup>(column == columns ? 0 : column);
#if defined(__CUDACC__)
#pragma unroll
#endif
        for (uint32_t j = 0; j < kGroup; ++j) decode_step(std::true_type(), step, j, signed_byte(now, j));
        stage();
        step += kGroup;
      } while (step < stop);
    }
    // Other groups may hold the end of a row or of a lane.
    while (step < lesser(most, tile_end)) {
      words.top_up(warp);
      for (uint32_t j = 0; j < kGroup; ++j, ++step) {
        if (column == columns) {
          column = 0;
          begin_row();
        }
        decode_step(std::false_type(), step, j, signed_byte(rows.template classes_at<1>(column), 0));
        ++column;
      }
      stage();
    }
    warp.sync();
    const auto* const tile = reinterpret_cast<const uint32_t*>(memory.shared + memory.tile);
    if (tile_end <= writer.whole_until)
      good = writer.put(warp, tile_begin, tile) && good;
    else
      good = put_tile_of_kind<Symbol>(warp, part, t, {first_lane, tile_begin, step - tile_begin}, tile) && good;
    warp.sync();
    tile_at = memory.tile;
  }

  const uint32_t wrong = warp.ballot([&](int i) { return x[i] != 1u << 16; });
  if (wrong != 0 || words.taken() != end || !good) warp.report(part.status, kStreamError);
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_BLOCK_H
