// The wide coder's C API: arguments checked, exceptions turned into status codes.
// SPDX-License-Identifier: Apache-2.0
#include "codec_api.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "blob_frame.h"
#include "compensated_rounding.h"
#include "dequantize.h"
#include "exception_guard.h"
#include "float_planes.h"
#include "trellis_search.h"
#include "wide_decode.h"
#include "wide_encode.h"
#include "wide_format.h"
#include "wide_reader.h"
#include "wide_step.h"
#include "wide_trellis.h"

using toolkit::guarded;
using toolkit::wide::Segment;
using toolkit::wide::Tensor;

struct tk_symbol_rates {
  toolkit::wide::LearntRates learnt;
};

namespace {

const Tensor* tensor_of(const tk_wide_reader* reader, int64_t tensor) {
  if (!reader || tensor < 0 || tensor >= static_cast<int64_t>(reader->segment.tensors.size())) return nullptr;
  return &reader->segment.tensors[static_cast<size_t>(tensor)];
}

// Whether a tensor of these dimensions has less than 2^31 symbols.
bool is_moderate_shape(int64_t a, int64_t b, int64_t c) {
  constexpr int64_t most = 0x7fffffff;
  return a >= 1 && b >= 1 && c >= 1 && a <= most && b <= most && c <= most && a <= most / b && a * b <= most / c;
}

}  // namespace

int32_t tk_best_isa(void) { return toolkit::wide::best_isa(); }

void tk_free(void* memory) { std::free(memory); }

int32_t tk_wide_encode(const tk_tensor* tensors, int64_t num_tensors, const tk_wide_options* options, uint16_t** words,
                       int64_t* num_words) {
  if (!tensors || !options || !words || !num_words || num_tensors < 1 || num_tensors > 65535) return TK_ERR_ARGUMENT;
  if (options->contexts < 0 || options->contexts > 2 || options->steps < 0 || options->threads < 0)
    return TK_ERR_ARGUMENT;
  constexpr int64_t most = 0x7fffffff;
  int64_t symbols = 0;
  for (int64_t i = 0; i < num_tensors; ++i) {
    const tk_tensor& t = tensors[i];
    if (!t.symbols || t.a < 1 || t.b < 1 || t.c < 1 || t.a > most || t.b > most || t.c > most) return TK_ERR_ARGUMENT;
    if (t.a > most / t.b || t.a * t.b > most / t.c) return TK_ERR_ARGUMENT;
    symbols += t.a * t.b * t.c;
    if (symbols > most / 2) return TK_ERR_ARGUMENT;
  }
  return guarded([&]() -> int32_t {
    std::unique_ptr<uint16_t, decltype(&std::free)> out(nullptr, std::free);
    int64_t size = 0;
    toolkit::wide::encode_segment(tensors, num_tensors, *options, [&](int64_t body_words) {
      size = toolkit::kFrameWords + body_words;
      out.reset(static_cast<uint16_t*>(std::malloc(static_cast<size_t>(size) * sizeof(uint16_t))));
      if (!out) throw std::bad_alloc();
      return out.get() + toolkit::kFrameWords;
    });
    // One long lane gives every lane its length in the matrix of all symbols: such tensors do not fit one segment.
    const auto field = [&](int64_t at) {
      return static_cast<int64_t>(toolkit::wide::load_u32(out.get() + toolkit::kFrameWords + at));
    };
    if (!toolkit::wide::is_moderate(field(4), field(8), field(10))) return TK_ERR_ARGUMENT;
    toolkit::write_frame(out.get(), size, toolkit::kCoderWide);
    *words = out.release();
    *num_words = size;
    return TK_OK;
  });
}

int32_t tk_search_symbols(const tk_search* search, int16_t* symbols, double* bits) {
  if (!search || !search->values || !symbols || !bits) return TK_ERR_ARGUMENT;
  const tk_search& s = *search;
  if (!is_moderate_shape(s.a, s.b, s.c)) return TK_ERR_ARGUMENT;
  if (!(s.rate_weight >= 0) || s.most < 1 || s.most > 32767 || s.rounds < 0 || s.threads < 0) return TK_ERR_ARGUMENT;
  if (s.starts < 1 || s.starts > 2) return TK_ERR_ARGUMENT;
  return guarded([&]() -> int32_t {
    *bits = toolkit::wide::search_symbols(s, symbols);
    return TK_OK;
  });
}

int32_t tk_trellis_integers(const int16_t* symbols, int64_t rows, int64_t columns, int16_t* integers) {
  if (!symbols || !integers || rows < 0 || columns < 1 || rows > INT64_MAX / columns) return TK_ERR_ARGUMENT;
  return guarded([&]() -> int32_t {
    const std::vector<uint8_t> quantisers = toolkit::wide::find_quantisers(symbols, rows, columns);
    for (size_t i = 0; i < quantisers.size(); ++i)
      integers[i] = static_cast<int16_t>(toolkit::wide::reconstruct(symbols[i], quantisers[i]));
    return TK_OK;
  });
}

int32_t tk_symbol_rates_learn(const int16_t* symbols, int64_t a, int64_t b, int64_t c, int32_t threads,
                              tk_symbol_rates** rates) {
  if (!symbols || !rates || !is_moderate_shape(a, b, c) || threads < 0) return TK_ERR_ARGUMENT;
  return guarded([&]() -> int32_t {
    auto made = std::make_unique<tk_symbol_rates>();
    made->learnt.shape.a = a;
    made->learnt.shape.b = b;
    made->learnt.shape.c = c;
    made->learnt.rates = toolkit::wide::SymbolRates(symbols, made->learnt.shape, false, threads);
    *rates = made.release();
    return TK_OK;
  });
}

void tk_symbol_rates_close(tk_symbol_rates* rates) { delete rates; }

int32_t tk_symbol_rates_total(const tk_symbol_rates* rates, const int16_t* symbols, double* bits) {
  if (!rates || !symbols || !bits) return TK_ERR_ARGUMENT;
  *bits = rates->learnt.total(symbols);
  return TK_OK;
}

int32_t tk_symbol_rates_get_info(const tk_symbol_rates* rates, tk_rates_info* info) {
  if (!rates || !info) return TK_ERR_ARGUMENT;
  const toolkit::wide::SymbolRates& learnt = rates->learnt.rates;
  *info = {rates->learnt.shape.rows(),
           rates->learnt.shape.c,
           learnt.set().classes,
           learnt.set().contexts,
           static_cast<int32_t>(learnt.table_bits().size() / 256),
           learnt.low_bits()};
  return TK_OK;
}

int32_t tk_symbol_rates_get_model(const tk_symbol_rates* rates, const tk_rates_model* model) {
  if (!rates || !model || !model->row_classes || !model->column_classes || !model->t1 || !model->t2 || !model->map ||
      !model->bits)
    return TK_ERR_ARGUMENT;
  const toolkit::wide::SymbolRates& learnt = rates->learnt.rates;
  for (int64_t row = 0; row < rates->learnt.shape.rows(); ++row)
    model->row_classes[row] = static_cast<int8_t>(learnt.row_class(row));
  for (int64_t c = 0; c < rates->learnt.shape.c; ++c)
    model->column_classes[c] = static_cast<int8_t>(learnt.column_class(c));
  const toolkit::wide::SetPlan& set = learnt.set();
  std::copy_n(set.t1.begin(), set.classes, model->t1);
  std::copy_n(set.t2.begin(), set.classes, model->t2);
  std::copy(set.map.begin(), set.map.end(), model->map);
  std::copy(learnt.table_bits().begin(), learnt.table_bits().end(), model->bits);
  return TK_OK;
}

int32_t tk_round_features(const tk_feature_block* block, const tk_symbol_rates* rates, int64_t num_symbols,
                          int16_t* symbols, float* missed) {
  if (!block || !symbols || !missed || num_symbols < 1) return TK_ERR_ARGUMENT;
  const tk_feature_block& b = *block;
  if (!b.targets || !b.coupling || !b.importance || !b.places || b.features < 1 || b.outputs < 1 || b.stride < 1)
    return TK_ERR_ARGUMENT;
  if (!(b.rate_weight >= 0) || b.most < 1 || b.most > 32767) return TK_ERR_ARGUMENT;
  if (rates && rates->learnt.shape.size() != num_symbols) return TK_ERR_ARGUMENT;
  if (b.outputs - 1 > (num_symbols - 1) / b.stride) return TK_ERR_ARGUMENT;
  const int64_t last = (b.outputs - 1) * b.stride;
  for (int64_t i = 0; i < b.features; ++i)
    if (b.places[i] < 0 || b.places[i] >= num_symbols - last) return TK_ERR_ARGUMENT;
  toolkit::wide::round_features(b, rates ? &rates->learnt : nullptr, symbols, missed);
  return TK_OK;
}

int32_t tk_wide_open(const uint16_t* words, int64_t num_words, tk_wide_reader** reader) {
  if (!words || !reader || num_words < 0) return TK_ERR_ARGUMENT;
  return guarded([&]() -> int32_t {
    const uint16_t* body = nullptr;
    int64_t body_words = 0;
    if (tk_status status = toolkit::check_frame(words, num_words, toolkit::kCoderWide, &body, &body_words))
      return status;
    auto made = std::make_unique<tk_wide_reader>();
    made->blob = words;
    made->num_words = num_words;
    static std::atomic<uint64_t> readers{0};
    made->serial = ++readers;
    if (tk_status status = toolkit::wide::parse_segment(body, body_words, false, &made->segment)) return status;
    *reader = made.release();
    return TK_OK;
  });
}

void tk_wide_close(tk_wide_reader* reader) { delete reader; }

int32_t tk_wide_get_info(const tk_wide_reader* reader, tk_wide_info* info) {
  if (!reader || !info) return TK_ERR_ARGUMENT;
  const Segment& s = reader->segment;
  *info = {static_cast<int64_t>(s.tensors.size()),
           s.num_lanes,
           s.num_blocks,
           s.num_steps,
           s.num_code_words,
           static_cast<int64_t>(s.exceptions.size()),
           s.side_words,
           s.wide ? 1 : 0,
           static_cast<int32_t>(s.sets.size())};
  return TK_OK;
}

int32_t tk_wide_get_tensor(const tk_wide_reader* reader, int64_t tensor, tk_wide_tensor_info* info) {
  const Tensor* const t = tensor_of(reader, tensor);
  if (!t || !info) return TK_ERR_ARGUMENT;
  const Segment& s = reader->segment;
  const auto& begin = s.block_begin;
  *info = {t->a,
           t->b,
           t->c,
           t->k,
           t->first_lane,
           t->num_lanes,
           begin[static_cast<size_t>(t->first_block + t->num_blocks)] - begin[static_cast<size_t>(t->first_block)],
           t->set,
           t->low_bits,
           s.sets[static_cast<size_t>(t->set)].contexts,
           0};
  return TK_OK;
}

int32_t tk_wide_decode_all(const tk_wide_reader* reader, void* out, int64_t out_bytes, int32_t threads, int32_t isa) {
  if (!reader || !out || threads < 0) return TK_ERR_ARGUMENT;
  const Segment& s = reader->segment;
  if (out_bytes != s.num_lanes * s.num_steps * (s.wide ? 2 : 1)) return TK_ERR_ARGUMENT;
  return guarded([&] { return toolkit::wide::decode_all(s, out, threads, static_cast<tk_isa>(isa)); });
}

int32_t tk_wide_decode_tensors(const tk_wide_reader* reader, void* out, int64_t out_bytes, int32_t threads,
                               int32_t isa) {
  if (!reader || !out || threads < 0) return TK_ERR_ARGUMENT;
  const Segment& s = reader->segment;
  int64_t symbols = 0;
  for (const Tensor& t : s.tensors) symbols += t.size();
  if (out_bytes != symbols * (s.wide ? 2 : 1)) return TK_ERR_ARGUMENT;
  return guarded([&] { return toolkit::wide::decode_tensors(s, out, threads, static_cast<tk_isa>(isa)); });
}

int32_t tk_wide_decode_tensor(const tk_wide_reader* reader, int64_t tensor, void* out, int64_t out_bytes,
                              int32_t threads, int32_t isa) {
  const Tensor* const t = tensor_of(reader, tensor);
  if (!t || !out || threads < 0 || out_bytes != t->size() * (reader->segment.wide ? 2 : 1)) return TK_ERR_ARGUMENT;
  return guarded(
      [&] { return toolkit::wide::decode_tensor(reader->segment, *t, out, threads, static_cast<tk_isa>(isa)); });
}

int32_t tk_wide_decode_dequantize(const tk_wide_reader* reader, int64_t tensor, const tk_dequantize* how, void* out,
                                  int64_t out_bytes, int32_t threads, int32_t isa) {
  const Tensor* const t = tensor_of(reader, tensor);
  if (!t || !how || !out || threads < 0 || !how->scales || how->num_scales < 1 || how->inner < 1)
    return TK_ERR_ARGUMENT;
  if (how->num_values < 0 || how->num_values > t->size()) return TK_ERR_ARGUMENT;
  const int64_t size = toolkit::float_size(how->out_type);
  if (!size || out_bytes != how->num_values * size) return TK_ERR_ARGUMENT;
  return guarded([&] {
    return toolkit::wide::decode_dequantize(reader->segment, *t, *how, out, threads, static_cast<tk_isa>(isa));
  });
}

int32_t tk_wide_decode_lookup(const tk_wide_reader* reader, int64_t tensor, const void* codebook, int64_t num_entries,
                              int64_t offset, int32_t elem_bytes, int64_t num_values, void* out, int64_t out_bytes,
                              int32_t threads, int32_t isa) {
  const Tensor* const t = tensor_of(reader, tensor);
  if (!t || !codebook || !out || num_entries < 1 || threads < 0) return TK_ERR_ARGUMENT;
  if (elem_bytes != 2 && elem_bytes != 4) return TK_ERR_ARGUMENT;
  if (num_values < 0 || num_values > t->size() || out_bytes != num_values * elem_bytes) return TK_ERR_ARGUMENT;
  return guarded([&] {
    return toolkit::wide::decode_lookup(reader->segment, *t, {codebook, num_entries, offset, elem_bytes}, num_values,
                                        out, threads, static_cast<tk_isa>(isa));
  });
}

int32_t tk_join_planes(const uint8_t* const* planes, int32_t elem_bytes, int64_t count, int32_t threads, void* out) {
  if (!planes || !out || count < 0 || threads < 0 || (elem_bytes != 2 && elem_bytes != 4)) return TK_ERR_ARGUMENT;
  if (!std::all_of(planes, planes + elem_bytes, [](const uint8_t* plane) { return plane; })) return TK_ERR_ARGUMENT;
  return guarded([&] {
    if (elem_bytes == 4)
      toolkit::join_planes(planes, count, threads, static_cast<uint32_t*>(out));
    else
      toolkit::join_planes(planes, count, threads, static_cast<uint16_t*>(out));
    return TK_OK;
  });
}
