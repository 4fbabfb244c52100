// Decoding of a tensor fused with dequantisation or codebook lookup: block by block through a cache-sized buffer.
// SPDX-License-Identifier: Apache-2.0
#include "dequantize.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "threads.h"
#include "wide_decode.h"

namespace toolkit {

int64_t float_size(int32_t type) {
  if (type == TK_FLOAT32) return 4;
  return type == TK_FLOAT16 || type == TK_BFLOAT16 ? 2 : 0;
}

uint16_t to_float16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7e00;   // NaN
  if (bits >= 0x477ff000) return sign | 0x7c00;  // rounds to infinity
  if (bits < 0x38800000) {
    // Subnormal: adding 0.5 leaves the wanted, correctly rounded bits at the end of the mantissa.
    float magnitude;
    std::memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000));
  }
  bits += 0xfff + (bits >> 13 & 1);
  return static_cast<uint16_t>(sign | (bits - 0x38000000) >> 13);
}

uint16_t to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

namespace wide {
namespace {

// Decodes the tensor in pieces of a pair of blocks and hands each to finish(symbols, first flat index, count), which
// returns false on a symbol it cannot take.
template <class Symbol, class Finish>
tk_status decode_pieces(const Segment& s, const Tensor& t, int64_t num_values, int threads, tk_isa isa, Finish finish) {
  const int64_t stride = t.lane_stride(), pairs = (t.num_blocks + 1) / 2;
  std::atomic<int> result{TK_OK};
  parallel_for(pairs, threads, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<Symbol[]> symbols(new Symbol[static_cast<size_t>(std::min(t.size(), 2 * kLanes * stride))]);
    for (int64_t pair = begin; pair < end && result == TK_OK; ++pair) {
      const int64_t block = 2 * pair, last = std::min(block + 2, t.num_blocks), first = block * kLanes * stride;
      if (tk_status status = decode_lanes(s, t, symbols.get(), stride, block, last, 1, isa)) {
        result = status;
        return;
      }
      if (s.wide) apply_exceptions(s, t, symbols.get(), stride, block * kLanes, last * kLanes);
      const int64_t count = std::min(last * kLanes * stride, num_values) - first;
      if (count > 0 && !finish(symbols.get(), first, count)) result = TK_ERR_STREAM;
    }
  });
  return static_cast<tk_status>(result.load());
}

template <class Out>
Out convert(float value, int32_t type) {
  if constexpr (sizeof(Out) == 4) {
    return value;
  } else {
    return type == TK_FLOAT16 ? to_float16(value) : to_bfloat16(value);
  }
}

template <class Symbol, class Out>
tk_status dequantize(const Segment& s, const Tensor& t, const tk_dequantize& how, void* out, int threads, tk_isa isa) {
  auto* const to = static_cast<Out*>(out);
  // A single scale is one group of all values, whatever `inner` says.
  const int64_t inner = how.num_scales == 1 ? std::max<int64_t>(t.size(), 1) : how.inner;
  return decode_pieces<Symbol>(
      s, t, how.num_values, threads, isa, [&](const Symbol* from, int64_t first, int64_t count) {
        if (how.inner == 1 && how.num_scales > 1) {
          // One scale per value: runs along the scales, without a division per value.
          for (int64_t i = 0; i < count;) {
            const int64_t j = (first + i) % how.num_scales, n = std::min(count - i, how.num_scales - j);
            Out* const o = to + first + i;
            const Symbol* const v = from + i;
            const float* const scales = how.scales + j;
            if (how.zero_points) {
              const int32_t* const zeros = how.zero_points + j;
              for (int64_t e = 0; e < n; ++e)
                o[e] = convert<Out>(static_cast<float>(v[e] - zeros[e]) * scales[e], how.out_type);
            } else {
              for (int64_t e = 0; e < n; ++e) o[e] = convert<Out>(static_cast<float>(v[e]) * scales[e], how.out_type);
            }
            i += n;
          }
          return true;
        }
        for (int64_t i = 0; i < count;) {
          const int64_t group = (first + i) / inner;
          const int64_t n = std::min(count - i, (group + 1) * inner - (first + i));
          const int64_t j = group % how.num_scales;
          const float scale = how.scales[j];
          const int32_t zero = how.zero_points ? how.zero_points[j] : 0;
          Out* const o = to + first + i;
          const Symbol* const v = from + i;
          for (int64_t e = 0; e < n; ++e) o[e] = convert<Out>(static_cast<float>(v[e] - zero) * scale, how.out_type);
          i += n;
        }
        return true;
      });
}

template <class Symbol, class Elem>
tk_status lookup(const Segment& s, const Tensor& t, const Codebook& book, int64_t num_values, void* out, int threads,
                 tk_isa isa) {
  auto* const to = static_cast<Elem*>(out);
  const auto* const entries = static_cast<const Elem*>(book.entries);
  // No symbol can reach the codebook from farther away; nor can the sum below overflow.
  if (book.offset < INT16_MIN || book.offset > book.count - INT16_MIN) return TK_ERR_STREAM;
  return decode_pieces<Symbol>(s, t, num_values, threads, isa, [&](const Symbol* from, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = from[i] + book.offset;
      if (index < 0 || index >= book.count) return false;
      to[first + i] = entries[index];
    }
    return true;
  });
}

}  // namespace

tk_status decode_dequantize(const Segment& s, const Tensor& t, const tk_dequantize& how, void* out, int threads,
                            tk_isa isa) {
  const bool full = how.out_type == TK_FLOAT32;
  if (s.wide)
    return full ? dequantize<int16_t, float>(s, t, how, out, threads, isa)
                : dequantize<int16_t, uint16_t>(s, t, how, out, threads, isa);
  return full ? dequantize<int8_t, float>(s, t, how, out, threads, isa)
              : dequantize<int8_t, uint16_t>(s, t, how, out, threads, isa);
}

tk_status decode_lookup(const Segment& s, const Tensor& t, const Codebook& book, int64_t num_values, void* out,
                        int threads, tk_isa isa) {
  const bool four = book.elem_bytes == 4;
  if (s.wide)
    return four ? lookup<int16_t, uint32_t>(s, t, book, num_values, out, threads, isa)
                : lookup<int16_t, uint16_t>(s, t, book, num_values, out, threads, isa);
  return four ? lookup<int8_t, uint32_t>(s, t, book, num_values, out, threads, isa)
              : lookup<int8_t, uint16_t>(s, t, book, num_values, out, threads, isa);
}

}  // namespace wide
}  // namespace toolkit
