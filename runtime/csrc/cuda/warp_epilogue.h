// From symbols staged in a tile to values in memory: dequantisation, codebook lookup, coalesced stores.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_WARP_EPILOGUE_H
#define TOOLKIT_CUDA_WARP_EPILOGUE_H

#include "decode_launch.h"
#include "warp_numbers.h"
#include "warp_policy.h"

namespace toolkit::cuda {

inline constexpr uint32_t kStreamError = 10;  // TK_ERR_STREAM

TK_WARP uint32_t divide(uint32_t n, const Divider& by) {
  return static_cast<uint32_t>((static_cast<uint64_t>(n) * by.multiplier) >> 31) >> by.shift;
}
TK_WARP uint32_t remainder_of(uint32_t n, const Divider& by) { return n - divide(n, by) * by.divisor; }

// The scale of flat index i of the tensor.
TK_WARP uint32_t scale_index(const Epilogue& e, uint32_t i) {
  if (e.map == ScaleMap::kOne) return 0;
  const uint32_t group = divide(i, e.inner);
  if (e.map == ScaleMap::kAxis) return remainder_of(group, e.count);
  const uint32_t outer = divide(group, e.length), place = group - outer * e.length.divisor;
  return (outer * e.blocks + divide(place, e.block)) * e.inner.divisor + (i - group * e.inner.divisor);
}

TK_WARP float scale_at(const Epilogue& e, uint32_t j) {
  if (e.scale_type == NumberType::kFloat32) return static_cast<const float*>(e.scales)[j];
  const uint16_t bits = static_cast<const uint16_t*>(e.scales)[j];
  return e.scale_type == NumberType::kFloat16 ? from_float16(bits) : from_bfloat16(bits);
}

// kCount scales from j on, where they can be read 16 bytes at once.
template <uint32_t kCount>
TK_WARP void scales_at(const Epilogue& e, uint32_t j, float* scales) {
  if (e.scale_type == NumberType::kFloat32) {
    const auto* const from = reinterpret_cast<const Bytes16*>(static_cast<const float*>(e.scales) + j);
    for (uint32_t n = 0; n < kCount / 4; ++n) {
      const Bytes16 four = from[n];
      for (uint32_t k = 0; k < 4; ++k) scales[4 * n + k] = float_of(four.word[k]);
    }
    return;
  }
  // Eight bytes hold the scales of a unit of float32, sixteen those of narrower ones.
  const auto* const from = reinterpret_cast<const Bytes8*>(static_cast<const uint16_t*>(e.scales) + j);
  for (uint32_t n = 0; n < kCount / 4; ++n) {
    const Bytes8 four = from[n];
    for (uint32_t k = 0; k < 4; ++k) {
      const auto bits = static_cast<uint16_t>(four.word[k / 2] >> (16 * (k % 2)));
      scales[4 * n + k] = e.scale_type == NumberType::kFloat16 ? from_float16(bits) : from_bfloat16(bits);
    }
  }
}

TK_WARP int zero_at(const Epilogue& e, uint32_t j) {
  if (e.zero_type == NumberType::kNone) return 0;
  if (e.zero_type == NumberType::kInt8) return static_cast<const int8_t*>(e.zeros)[j];
  if (e.zero_type == NumberType::kInt16) return static_cast<const int16_t*>(e.zeros)[j];
  return static_cast<const int32_t*>(e.zeros)[j];
}

// What a kind of output is made of. Value: the stored type; width: values in 16 bytes.
template <OutKind kKind, class Symbol>
struct Output;
template <class Symbol>
struct Output<OutKind::kSymbols, Symbol> {
  using Value = Symbol;
};
template <class Symbol>
struct Output<OutKind::kFloat32, Symbol> {
  using Value = float;
};
template <class Symbol>
struct Output<OutKind::kFloat16, Symbol> {
  using Value = uint16_t;
};
template <class Symbol>
struct Output<OutKind::kBfloat16, Symbol> {
  using Value = uint16_t;
};
template <class Symbol>
struct Output<OutKind::kLookup16, Symbol> {
  using Value = uint16_t;
};
template <class Symbol>
struct Output<OutKind::kLookup32, Symbol> {
  using Value = uint32_t;
};

template <OutKind kKind>
inline constexpr bool kIsScaled =
    kKind == OutKind::kFloat32 || kKind == OutKind::kFloat16 || kKind == OutKind::kBfloat16;

// The value of a symbol; `good` becomes false where it is outside the codebook.
template <OutKind kKind, class Symbol>
TK_WARP typename Output<kKind, Symbol>::Value value_of(const Epilogue& e, int symbol, float scale, int zero,
                                                       bool* good) {
  if constexpr (kKind == OutKind::kSymbols) {
    return static_cast<Symbol>(symbol);
  } else if constexpr (kIsScaled<kKind>) {
    const float value = multiply(static_cast<float>(symbol - zero), scale);
    if constexpr (kKind == OutKind::kFloat32) return value;
    if constexpr (kKind == OutKind::kFloat16) return float16_bits(value);
    return bfloat16_bits(value);
  } else {
    const int64_t index = symbol + e.offset;
    if (index < 0 || index >= e.num_entries) {
      *good = false;
      return 0;
    }
    return static_cast<const typename Output<kKind, Symbol>::Value*>(e.codebook)[index];
  }
}

// Writes the value of one symbol of a tensor; `flat` is its index in the tensor, `at` that in the output.
template <OutKind kKind, class Symbol>
TK_WARP bool put_value(const LaunchPart& part, uint32_t flat, int64_t at, int symbol) {
  const Epilogue& e = part.epilogue;
  float scale = 0;
  int zero = 0;
  if constexpr (kIsScaled<kKind>) {
    const uint32_t j = scale_index(e, flat);
    scale = scale_at(e, j);
    zero = zero_at(e, j);
  }
  bool good = true;
  static_cast<typename Output<kKind, Symbol>::Value*>(part.out)[at] =
      value_of<kKind, Symbol>(e, symbol, scale, zero, &good);
  return good;
}

template <class Symbol>
TK_WARP int symbol_of(const uint32_t* row, uint32_t column) {
  const uint32_t bits = row[column / (4 / sizeof(Symbol))] >> (column % (4 / sizeof(Symbol)) * 8 * sizeof(Symbol));
  return static_cast<Symbol>(bits);
}

// The part of a tensor that a tile holds: steps first_step .. first_step + num_steps - 1 of 32 lanes from `lane` on.
struct TilePlace {
  uint32_t lane, first_step, num_steps;
};

// How many steps a lane of the tensor has.
TK_WARP uint32_t steps_of_lane(const TensorJob& t, uint32_t lane) {
  if (lane >= t.num_lanes) return 0;
  const uint32_t before = lane * t.rows_per_lane;  // lane < num_lanes, so before < rows
  return lesser(t.rows_per_lane, t.rows - before) * t.c;
}

// Writes any tile, value by value, 32 of a row at once.
template <OutKind kKind, class Symbol, class W>
TK_WARP bool put_tile(const W& warp, const LaunchPart& part, const TensorJob& t, const TilePlace& place,
                      const uint32_t* tile) {
  constexpr uint32_t kSteps = 4 / sizeof(Symbol) * kTileWords;  // of a full tile
  const uint32_t num_values = lesser(t.size, part.most_values);
  typename W::template PerLane<bool> good;
  warp.each([&](int i) {
    good[i] = true;
    const auto column = static_cast<uint32_t>(i) % kSteps;
    if (column >= place.num_steps) return;
    const uint32_t step = place.first_step + column;
    for (uint32_t row = static_cast<uint32_t>(i) / kSteps; row < kWarpLanes; row += kWarpLanes / kSteps) {
      const uint32_t lane = place.lane + row;
      const uint32_t flat = lane * t.lane_steps + step;
      if (step >= steps_of_lane(t, lane) || flat >= num_values) continue;
      const int64_t at = lane * part.out_stride + step;
      const int symbol = symbol_of<Symbol>(tile + row * kTilePitch, column);
      if (!put_value<kKind, Symbol>(part, flat, at, symbol)) good[i] = false;
    }
  });
  return warp.ballot([&](int i) { return !good[i]; }) == 0;
}

// The same with the kind of output known at run time only.
template <class Symbol, class W>
TK_WARP bool put_tile_of_kind(const W warp, const LaunchPart& part, const TensorJob& t, const TilePlace place,
                              const uint32_t* tile) {
  switch (part.epilogue.kind) {
    case OutKind::kNothing:
      return true;
    case OutKind::kSymbols:
      return put_tile<OutKind::kSymbols, Symbol>(warp, part, t, place, tile);
    case OutKind::kFloat32:
      return put_tile<OutKind::kFloat32, Symbol>(warp, part, t, place, tile);
    case OutKind::kFloat16:
      return put_tile<OutKind::kFloat16, Symbol>(warp, part, t, place, tile);
    case OutKind::kBfloat16:
      return put_tile<OutKind::kBfloat16, Symbol>(warp, part, t, place, tile);
    case OutKind::kLookup16:
      return put_tile<OutKind::kLookup16, Symbol>(warp, part, t, place, tile);
    case OutKind::kLookup32:
      return put_tile<OutKind::kLookup32, Symbol>(warp, part, t, place, tile);
  }
  return false;
}

// Puts a replaced symbol in its place (FORMAT.md 2.7).
TK_WARP bool put_patch(const LaunchPart& part, const TensorJob& t, const Patch& patch) {
  if (patch.flat >= part.most_values) return true;
  const int64_t at = patch.flat / t.lane_steps * part.out_stride + patch.flat % t.lane_steps;
  switch (part.epilogue.kind) {
    case OutKind::kNothing:
      return true;
    case OutKind::kSymbols:
      return put_value<OutKind::kSymbols, int16_t>(part, patch.flat, at, patch.value);
    case OutKind::kFloat32:
      return put_value<OutKind::kFloat32, int16_t>(part, patch.flat, at, patch.value);
    case OutKind::kFloat16:
      return put_value<OutKind::kFloat16, int16_t>(part, patch.flat, at, patch.value);
    case OutKind::kBfloat16:
      return put_value<OutKind::kBfloat16, int16_t>(part, patch.flat, at, patch.value);
    case OutKind::kLookup16:
      return put_value<OutKind::kLookup16, int16_t>(part, patch.flat, at, patch.value);
    case OutKind::kLookup32:
      return put_value<OutKind::kLookup32, int16_t>(part, patch.flat, at, patch.value);
  }
  return false;
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_EPILOGUE_H
