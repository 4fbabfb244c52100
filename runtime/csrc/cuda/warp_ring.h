// The code words of a block, from memory through a ring in shared memory.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_WARP_RING_H
#define TOOLKIT_CUDA_WARP_RING_H

#include "decode_launch.h"
#include "warp_policy.h"

namespace toolkit::cuda {

// Where a warp works.
struct WarpMemory {
  uint8_t* shared;        // records at its beginning
  const uint8_t* tables;  // the same, or global memory: records, then tables
  uint32_t tile, ring;    // where the warp's own parts begin: kTileBytes, kRingBytes
};

// The ring holds two chunks of kChunkWords, the first one twice: so words up to a chunk behind the next one are read
// without regard to its end. A third chunk is in registers. All positions are bytes of shared memory.
template <class W>
struct WordRing {
  const DecodeLaunch& launch;
  uint8_t* shared;
  uint32_t next;  // where the next word lies
  typename W::template PerLane<uint32_t> below;

  TK_WARP WordRing(const W& warp, const DecodeLaunch& from, const WarpMemory& memory, uint64_t first_word)
      : launch(from),
        shared(memory.shared),
        next(memory.ring + static_cast<uint32_t>(first_word % 4) * 2),
        unit(first_word / 4),
        begin(memory.ring),
        fence(memory.ring + kChunkBytes),
        turns(0) {
    warp.each([&](int i) { below[i] = lanes_below(i); });
    warp.sync();
    load(warp);
    store(warp, 0);
    store(warp, 2 * kChunkBytes);
    load(warp);
    store(warp, kChunkBytes);
    load(warp);
    warp.sync();
  }

  // Afterwards kChunkWords words or more can be read.
  TK_WARP void top_up(const W& warp) {
    if (!warp.any([&](int) { return next >= fence; })) return;
    warp.sync();
    if (fence == begin + kChunkBytes) {
      store(warp, 0);
      store(warp, 2 * kChunkBytes);
      fence += kChunkBytes;
    } else {
      store(warp, kChunkBytes);
      fence -= kChunkBytes;
      next -= 2 * kChunkBytes;
      ++turns;
    }
    load(warp);
    warp.sync();
  }

  // Words taken, and those before the first that were loaded with it.
  TK_WARP uint32_t taken() const { return 2 * kChunkWords * turns + (next - begin) / 2; }

  // The next word for each lane whose bit is zero in `full`, in the order of the lanes. Other lanes get one that they
  // do not take: a branch would cost more. Before `turn` calls of pass without settle.
  TK_WARP uint32_t word(int i, uint32_t full, uint32_t turn) const {
    const auto rank = static_cast<uint32_t>(count_bits(~full & below[i]));
    return *reinterpret_cast<const uint16_t*>(shared + (next + 2 * rank + turn * (2 * kWarpLanes)));
  }
  // Moves on behind the words taken; settle then makes good what a number of such turns leaves out. (Between them
  // `next` may lie before the ring, in the warp's tile.)
  TK_WARP void pass(uint32_t full) { next -= 2 * static_cast<uint32_t>(count_bits(full)); }
  TK_WARP void settle(uint32_t turns) { next += turns * (2 * kWarpLanes); }

 private:
  uint64_t unit;  // of eight bytes, the next to load
  uint32_t begin, fence, turns;
  typename W::template PerLane<Bytes8> ahead;

  // Words behind the blob's end are zero.
  TK_WARP void load(const W& warp) {
    warp.each([&](int i) {
      const uint64_t own = unit + static_cast<uint32_t>(i);
      ahead[i] = own < launch.blob_units ? reinterpret_cast<const Bytes8*>(launch.blob)[own] : Bytes8{{0, 0}};
    });
    unit += kChunkWords / 4;
  }
  TK_WARP void store(const W& warp, uint32_t at) {
    warp.each([&](int i) { reinterpret_cast<Bytes8*>(shared + (begin + at))[i] = ahead[i]; });
  }
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_RING_H
