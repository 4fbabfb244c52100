// Decoding of a tensor fused with dequantisation or codebook lookup: block by block through a cache-sized buffer.
// SPDX-License-Identifier: Apache-2.0
#include "dequantize.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "half_float.h"
#include "threads.h"
#include "wide_decode.h"
#include "wide_search.h"

namespace toolkit {

int64_t float_size(int32_t type) {
  if (type == TK_FLOAT32) return 4;
  return type == TK_FLOAT16 || type == TK_BFLOAT16 ? 2 : 0;
}

namespace {

template <class Out>
Out convert(float value, int32_t type) {
  if constexpr (sizeof(Out) == 4) {
    return value;
  } else {
    return type == TK_FLOAT16 ? half_from_float(value) : bfloat16_from_float(value);
  }
}

// One scale per value: runs along the scales, without a division per value.
template <class Symbol, class Out>
void scale_each(const tk_dequantize& how, const Symbol* from, int64_t first, int64_t count, Out* to) {
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
}

template <class Symbol, class Out>
void scale_runs(const tk_dequantize& how, const Symbol* from, int64_t first, int64_t count, Out* to) {
  // A single scale is one group of all values, whatever `inner` says.
  const int64_t inner = how.num_scales == 1 ? first + count : how.inner;
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
}

template <class Elem, class Symbol>
bool copy_entries(const Codebook& book, const Symbol* from, int64_t count, Elem* to) {
  const auto* const entries = static_cast<const Elem*>(book.entries);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = from[i] + book.offset;
    if (index < 0 || index >= book.count) return false;
    to[i] = entries[index];
  }
  return true;
}

}  // namespace

template <class Symbol>
void dequantize(const tk_dequantize& how, const Symbol* symbols, int64_t first, int64_t count, void* tensor) {
  const auto scale = [&](auto* to) {
    if (how.inner == 1 && how.num_scales > 1)
      scale_each(how, symbols, first, count, to);
    else
      scale_runs(how, symbols, first, count, to);
  };
  if (how.out_type == TK_FLOAT32)
    scale(static_cast<float*>(tensor));
  else
    scale(static_cast<uint16_t*>(tensor));
}

template <class Symbol>
bool look_up(const Codebook& book, const Symbol* symbols, int64_t first, int64_t count, void* tensor) {
  // No symbol can reach the codebook from farther away; nor can a sum of the two overflow.
  if (book.offset < INT16_MIN || book.offset > book.count - INT16_MIN) return false;
  if (book.elem_bytes == 4) return copy_entries(book, symbols, count, static_cast<uint32_t*>(tensor) + first);
  return copy_entries(book, symbols, count, static_cast<uint16_t*>(tensor) + first);
}

template void dequantize(const tk_dequantize&, const int8_t*, int64_t, int64_t, void*);
template void dequantize(const tk_dequantize&, const int16_t*, int64_t, int64_t, void*);
template bool look_up(const Codebook&, const int8_t*, int64_t, int64_t, void*);
template bool look_up(const Codebook&, const int16_t*, int64_t, int64_t, void*);

namespace wide {
namespace {

// Blocks of a piece: enough side by side to hide latency, few enough for their symbols to stay in the cache. Tables of
// slots take most of that; trees take little.
int64_t piece_blocks(const Segment& s, const Tensor& t) {
  const TableSet& set = s.sets[static_cast<size_t>(t.set)];
  return set.forest || (has_one_table(set, t) && s.trees[only_table(set, t)]) ? 4 : 2;
}

// Decodes pieces through a buffer of the cache's size, and hands each to finish(symbols, first flat
// index, count), which returns false on a symbol it cannot take.
template <class Symbol, class Finish>
tk_status pass_pieces(const Segment& s, const Tensor& t, int64_t num_values, int64_t begin, int64_t end, tk_isa isa,
                      Finish finish) {
  const int64_t stride = t.lane_stride(), blocks = piece_blocks(s, t);
  const std::unique_ptr<Symbol[]> symbols(
      new Symbol[static_cast<size_t>(std::min(t.size(), blocks * kLanes * stride))]);
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t block = blocks * piece, last = std::min(block + blocks, t.num_blocks);
    const int64_t first = block * kLanes * stride;
    if (tk_status status = decode_lanes(s, t, symbols.get(), stride, block, last, 1, isa)) return status;
    if (s.wide) apply_exceptions(s, t, symbols.get(), stride, block * kLanes, last * kLanes);
    const int64_t count = std::min(last * kLanes * stride, num_values) - first;
    if (count > 0 && !finish(symbols.get(), first, count)) return TK_ERR_STREAM;
  }
  return TK_OK;
}

template <class Finish>
tk_status pass_pieces_of_any(const Segment& s, const Tensor& t, int64_t num_values, int64_t begin, int64_t end,
                             tk_isa isa, Finish finish) {
  if (s.wide) return pass_pieces<int16_t>(s, t, num_values, begin, end, isa, finish);
  return pass_pieces<int8_t>(s, t, num_values, begin, end, isa, finish);
}

// Calls decode(begin, end) for pieces of the tensor until one fails.
template <class Decode>
tk_status on_threads(const Segment& s, const Tensor& t, int threads, Decode decode) {
  std::atomic<int> result{TK_OK};
  parallel_for(piece_count(s, t), threads, [&](int64_t begin, int64_t end) {
    if (result != TK_OK) return;
    if (tk_status status = decode(begin, end)) result = status;
  });
  return static_cast<tk_status>(result.load());
}

}  // namespace

int64_t piece_count(const Segment& s, const Tensor& t) {
  const int64_t blocks = piece_blocks(s, t);
  return (t.num_blocks + blocks - 1) / blocks;
}

tk_status decode_pieces(const Segment& s, const Tensor& t, int64_t num_values, int64_t begin, int64_t end, void* out,
                        tk_isa isa) {
  const int64_t size = s.wide ? 2 : 1;
  return pass_pieces_of_any(s, t, num_values, begin, end, isa, [&](const auto* from, int64_t first, int64_t count) {
    std::memcpy(static_cast<char*>(out) + first * size, from, static_cast<size_t>(count * size));
    return true;
  });
}

tk_status dequantize_pieces(const Segment& s, const Tensor& t, const tk_dequantize& how, int64_t begin, int64_t end,
                            void* out, tk_isa isa) {
  const auto finish = [&](const auto* from, int64_t first, int64_t count) {
    dequantize(how, from, first, count, out);
    return true;
  };
  return pass_pieces_of_any(s, t, how.num_values, begin, end, isa, finish);
}

tk_status look_up_pieces(const Segment& s, const Tensor& t, const Codebook& book, int64_t num_values, int64_t begin,
                         int64_t end, void* out, tk_isa isa) {
  return pass_pieces_of_any(s, t, num_values, begin, end, isa, [&](const auto* from, int64_t first, int64_t count) {
    return look_up(book, from, first, count, out);
  });
}

tk_status decode_dequantize(const Segment& s, const Tensor& t, const tk_dequantize& how, void* out, int threads,
                            tk_isa isa) {
  return on_threads(s, t, threads,
                    [&](int64_t begin, int64_t end) { return dequantize_pieces(s, t, how, begin, end, out, isa); });
}

tk_status decode_lookup(const Segment& s, const Tensor& t, const Codebook& book, int64_t num_values, void* out,
                        int threads, tk_isa isa) {
  return on_threads(s, t, threads, [&](int64_t begin, int64_t end) {
    return look_up_pieces(s, t, book, num_values, begin, end, out, isa);
  });
}

}  // namespace wide
}  // namespace toolkit
