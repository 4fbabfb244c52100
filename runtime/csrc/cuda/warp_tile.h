// Whole tiles to memory: those of which every lane has all steps, where 16-byte stores are possible. Most tiles are;
// the others are written by put_tile (warp_epilogue.h), in the same arithmetic. SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_WARP_TILE_H
#define TOOLKIT_CUDA_WARP_TILE_H

#include "decode_launch.h"
#include "warp_epilogue.h"
#include "warp_policy.h"
#include "warp_ring.h"

namespace toolkit::cuda {

// Writes whole tiles of a block, one after another. Lane i takes 16 bytes of row i / kParts, then of every further
// 32 / kParts rows.
template <class Symbol, class W>
class TileWriter {
 public:
  // Steps of a lane up to which tiles are whole.
  uint32_t whole_until = 0;

  TK_WARP TileWriter(const W& warp, const LaunchPart& from, const TensorJob& tensor, uint32_t lane, uint32_t least,
                     const WarpMemory& memory)
      : part(from), lane_steps(tensor.lane_steps), first_lane(lane) {
    const Epilogue& e = part.epilogue;
    const uint32_t num_values = lesser(tensor.size, part.most_values);
    const bool takes = e.kind != OutKind::kNothing && (e.whole_tiles || !is_scaled(e.kind));
    const bool all = least > 0 && (first_lane + kWarpLanes - 1) * lane_steps + least <= num_values;
    whole_until = warp.uniform(e.vector && takes && all ? least : 0);
    if (!whole_until || !is_scaled(e.kind) || e.run != ScaleRun::kLane) return;
    // The scale of each lane beside its row of the tile.
    warp.each([&](int i) {
      const uint32_t j = scale_index(e, (first_lane + static_cast<uint32_t>(i)) * lane_steps);
      auto* const row =
          reinterpret_cast<uint32_t*>(memory.shared + memory.tile) + static_cast<uint32_t>(i) * kTilePitch;
      row[kTileWords] = bits_of(scale_at(e, j));
      row[kTileWords + 1] = bits_of(zero_of<Symbol>(zero_at(e, j)));
    });
  }

  // Writes the tile of the steps from `step` on. Returns whether all symbols are in the codebook.
  TK_WARP bool put(const W& warp, uint32_t step, const uint32_t* tile) const {
    switch (part.epilogue.kind) {
      case OutKind::kSymbols:
        return put_units<OutKind::kSymbols, ScaleRun::kLane>(warp, step, tile);
      case OutKind::kFloat32:
        return put_kind<OutKind::kFloat32>(warp, step, tile);
      case OutKind::kFloat16:
        return put_kind<OutKind::kFloat16>(warp, step, tile);
      case OutKind::kBfloat16:
        return put_kind<OutKind::kBfloat16>(warp, step, tile);
      case OutKind::kLookup16:
        return put_units<OutKind::kLookup16, ScaleRun::kLane>(warp, step, tile);
      default:
        return put_units<OutKind::kLookup32, ScaleRun::kLane>(warp, step, tile);
    }
  }

 private:
  const LaunchPart& part;
  uint32_t lane_steps, first_lane;

  TK_WARP static bool is_scaled(OutKind kind) {
    return kind == OutKind::kFloat32 || kind == OutKind::kFloat16 || kind == OutKind::kBfloat16;
  }

  template <OutKind kKind>
  TK_WARP bool put_kind(const W& warp, uint32_t step, const uint32_t* tile) const {
    if (part.epilogue.run == ScaleRun::kLane) return put_units<kKind, ScaleRun::kLane>(warp, step, tile);
    if (part.epilogue.run == ScaleRun::kSame) return put_units<kKind, ScaleRun::kSame>(warp, step, tile);
    return put_units<kKind, ScaleRun::kConsecutive>(warp, step, tile);
  }

  template <OutKind kKind, ScaleRun kRun>
  TK_WARP bool put_units(const W& warp, uint32_t step, const uint32_t* tile) const {
    using Value = typename Output<kKind, Symbol>::Value;
    constexpr uint32_t kSymbolsOfWord = 4 / sizeof(Symbol), kSteps = kSymbolsOfWord * kTileWords;
    constexpr uint32_t kWidth = 16 / sizeof(Value), kParts = kSteps / kWidth, kRows = kWarpLanes / kParts;
    constexpr uint32_t kWords = kWidth / kSymbolsOfWord;
    typename W::template PerLane<bool> good;
    warp.each([&](int i) {
      good[i] = true;
      const uint32_t own_row = static_cast<uint32_t>(i) / kParts, place = static_cast<uint32_t>(i) % kParts;
      const uint32_t lane = first_lane + own_row;
      auto* to = static_cast<Value*>(part.out) + (lane * part.out_stride + step + place * kWidth);
      const int64_t further = static_cast<int64_t>(kRows) * part.out_stride;
      const uint32_t* row = tile + own_row * kTilePitch;
      uint32_t flat = lane * lane_steps + step + place * kWidth;
#if defined(__CUDACC__)
#pragma unroll 2
#endif
      for (uint32_t n = 0; n < kParts; ++n, to += further, row += kRows * kTilePitch, flat += kRows * lane_steps) {
        uint32_t words[kWords];
        for (uint32_t k = 0; k < kWords; ++k) words[k] = row[place * kWords + k];
        store16(to, unit_of<kKind, kRun>(words, row, flat, &good[i]));
      }
    });
    if constexpr (kKind == OutKind::kLookup16 || kKind == OutKind::kLookup32)
      return warp.ballot([&](int i) { return !good[i]; }) == 0;
    return true;
  }

  // The 16 bytes that some words of a row become.
  template <OutKind kKind, ScaleRun kRun>
  TK_WARP Bytes16 unit_of(const uint32_t* words, const uint32_t* row, uint32_t flat, bool* good) const {
    using Value = typename Output<kKind, Symbol>::Value;
    constexpr uint32_t kSymbolsOfWord = 4 / sizeof(Symbol), kWidth = 16 / sizeof(Value);
    const Epilogue& e = part.epilogue;
    Bytes16 bytes;
    if constexpr (kKind == OutKind::kSymbols) {
      for (uint32_t k = 0; k < 4; ++k) bytes.word[k] = words[k];
    } else if constexpr (!kIsScaled<kKind>) {
      Value values[kWidth];
      for (uint32_t k = 0; k < kWidth; ++k)
        values[k] = value_of<kKind, Symbol>(e, symbol_of<Symbol>(words, k), 0, 0, good);
      memcpy(&bytes, values, sizeof bytes);
    } else {
      float scales[kRun == ScaleRun::kConsecutive ? kWidth : 1];
      ZeroOf<Symbol> zero;
      if constexpr (kRun == ScaleRun::kLane) {
        scales[0] = float_of(row[kTileWords]);
        zero = zero_from<Symbol>(row[kTileWords + 1]);
      } else {
        const uint32_t j = scale_index(e, flat);
        if constexpr (kRun == ScaleRun::kSame)
          scales[0] = scale_at(e, j);
        else
          scales_at<kWidth>(e, j, scales);
        zero = zero_of<Symbol>(kRun == ScaleRun::kSame ? zero_at(e, j) : 0);
      }
      float values[kWidth];
      for (uint32_t k = 0; k < kWidth; ++k) {
        const float number = number_of<Symbol>(words[k / kSymbolsOfWord], k % kSymbolsOfWord, zero);
        values[k] = multiply(number, scales[kRun == ScaleRun::kConsecutive ? k : 0]);
      }
      for (uint32_t k = 0; k < 4; ++k) {
        if constexpr (kKind == OutKind::kFloat32)
          bytes.word[k] = bits_of(values[k]);
        else if constexpr (kKind == OutKind::kFloat16)
          bytes.word[k] = float16_pair(values[2 * k], values[2 * k + 1]);
        else
          bytes.word[k] = bfloat16_pair(values[2 * k], values[2 * k + 1]);
      }
    }
    return bytes;
  }
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_TILE_H
