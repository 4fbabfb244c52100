// Decodes the weights of a model: first what must be whole before it can be used, then piece by piece.
// SPDX-License-Identifier: Apache-2.0
#include "load_decode.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>

#include "blob_frame.h"
#include "dequantize.h"
#include "float_planes.h"
#include "small_bodies.h"
#include "threads.h"

namespace toolkit::load {
namespace {

constexpr int64_t kTaskSymbols = 1 << 17;
constexpr int64_t kWorthThreads = 1 << 17;  // symbols in all: a thread costs what a few ten thousand symbols do
constexpr int64_t kStreamFactor = 64;       // times that a symbol of a stream takes longer

void require(bool condition) {
  if (!condition) throw onnx::Unknown();
}

// A piece of work that returns whether it succeeded, and about how many symbols it decodes.
struct Task {
  int64_t symbols;
  std::function<bool()> work;
};

void run(std::vector<Task> tasks, int threads) {
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.symbols > b.symbols; });
  int64_t symbols = 0;
  for (const Task& task : tasks) symbols += task.symbols;
  std::atomic<bool> good{true};
  for_each_on_demand(static_cast<int64_t>(tasks.size()), symbols < kWorthThreads ? 1 : threads, [&](size_t, size_t i) {
    if (good && !tasks[i].work()) good = false;
  });
  require(good);
}

// Tasks that call decode(begin, end) for the pieces of a tensor.
template <class Decode>
void add_pieces(const wide::Segment& segment, const wide::Tensor& tensor, std::vector<Task>* tasks, Decode decode) {
  const int64_t pieces = wide::piece_count(segment, tensor), each = std::max<int64_t>(1, tensor.size() / pieces);
  const int64_t step = std::max<int64_t>(1, kTaskSymbols / each);
  for (int64_t begin = 0; begin < pieces; begin += step) {
    const int64_t end = std::min(pieces, begin + step);
    tasks->push_back({each * (end - begin), [decode, begin, end] { return decode(begin, end) == TK_OK; }});
  }
}

template <class Check, class Decode>
bool open_stream(Check check, Decode decode, const uint16_t* body, int64_t num_words, std::vector<int16_t>* stream) {
  int64_t count = 0;
  if (check(body, num_words, &count)) return false;
  stream->resize(static_cast<size_t>(count));
  return decode(body, num_words, stream->data()) == TK_OK;
}

Codebook codebook_of(const Weight& weight) {
  const int64_t size = onnx::element_bytes(weight.type);
  return {weight.codebook.data(), static_cast<int64_t>(weight.codebook.size()) / size, weight.symbols.offset,
          static_cast<int32_t>(size)};
}

tk_dequantize how_of(const Weight& weight) {
  tk_dequantize how{};
  how.scales = weight.scales.data();
  how.zero_points = weight.zero_points.empty() ? nullptr : weight.zero_points.data();
  how.num_scales = static_cast<int64_t>(weight.scales.size());
  how.inner = weight.inner;
  how.num_values = onnx::element_count(weight.dims);
  how.out_type = weight.type;
  return how;
}

template <class Symbol>
void join(const Weight& weight, const Symbol* symbols, int64_t count, char* to, int threads) {
  require(sizeof(Symbol) == 1);
  std::vector<const uint8_t*> planes{reinterpret_cast<const uint8_t*>(symbols)};
  for (const std::string_view plane : weight.planes) planes.push_back(reinterpret_cast<const uint8_t*>(plane.data()));
  if (weight.type == onnx::kFloat)
    join_planes(planes.data(), count, threads, reinterpret_cast<uint32_t*>(to));
  else
    join_planes(planes.data(), count, threads, reinterpret_cast<uint16_t*>(to));
}

// What becomes of symbols that lie in memory.
template <class Symbol>
void finish_symbols(const Weight& weight, const Symbol* symbols, int64_t count, char* to, int threads) {
  switch (weight.kind) {
    case Weight::kDequantized:
      dequantize(how_of(weight), symbols, 0, count, to);
      break;
    case Weight::kLookedUp:
      require(look_up(codebook_of(weight), symbols, 0, count, to));
      break;
    case Weight::kJoined:
      join(weight, symbols, count, to, threads);
      break;
    default:
      if (weight.type == onnx::kInt8)
        std::copy_n(symbols, count, reinterpret_cast<int8_t*>(to));
      else
        std::copy_n(symbols, count, reinterpret_cast<int16_t*>(to));
  }
}

}  // namespace

bool Opened::open(const Blob& blob) {
  const auto num_words = static_cast<int64_t>(blob.words.size() / 2);
  const auto* words = reinterpret_cast<const uint16_t*>(blob.words.data());
  if (reinterpret_cast<uintptr_t>(words) % alignof(uint16_t)) {
    copy.reset(new uint16_t[static_cast<size_t>(num_words)]);
    std::memcpy(copy.get(), blob.words.data(), blob.words.size());
    words = copy.get();
  }
  const uint16_t* body = nullptr;
  int64_t body_words = 0;
  if (check_frame(words, num_words, blob.is_stream ? blob.coder : kCoderWide, &body, &body_words)) return false;
  if (!blob.is_stream)
    return wide::parse_segment(body, body_words, false, &segment) == TK_OK && segment.wide == blob.is_wide;
  if (blob.coder == kCoderAdaptive) return open_stream(check_adaptive, decode_adaptive, body, body_words, &stream);
  if (blob.coder == kCoderHuffman) return open_stream(check_huffman, decode_huffman, body, body_words, &stream);
  return open_stream(check_fixed, decode_fixed, body, body_words, &stream);
}

Decoder::Decoder(Chains* chains, int threads) : chains_(*chains) {
  open_blobs(threads);
  find_tensors();
  chains->spread_scales();
}

// Whether the weight's tensor goes through a buffer of the cache's size straight to its place.
bool Decoder::is_direct(const Weight& weight) const {
  const Symbols& symbols = weight.symbols;
  if (symbols.is_part || is_stream(symbols.source) || weight.kind == Weight::kJoined) return false;
  const bool is_wide = opened_[chains_.sources[symbols.source].blob].segment.wide;
  if (is_wide && symbols.is_narrow) return false;
  return weight.kind != Weight::kSymbols || (weight.type == onnx::kInt16) == is_wide;
}

void Decoder::open_blobs(int threads) {
  opened_.resize(chains_.blobs.size());
  std::vector<Task> tasks;
  for (size_t i = 0; i < chains_.blobs.size(); ++i) {
    const Blob& blob = chains_.blobs[i];
    const auto words = static_cast<int64_t>(blob.words.size() / 2);
    // The tables of a wide blob cost about as much as so many symbols.
    const int64_t symbols = blob.is_stream ? words * kStreamFactor : words / 16 + kWorthThreads / 2;
    tasks.push_back({symbols, [this, i] { return opened_[i].open(chains_.blobs[i]); }});
  }
  run(std::move(tasks), threads);
}

// The tensor of each source, and that it has the symbols that are taken.
void Decoder::find_tensors() {
  for (const Source& source : chains_.sources) {
    const auto& tensors = opened_[source.blob].segment.tensors;
    const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const wide::Tensor& tensor) {
      return tensor.first_lane == source.lane && tensor.num_lanes == source.lanes &&
             tensor.lane_stride() == source.steps;
    });
    const bool stream = chains_.blobs[source.blob].is_stream;
    require(stream || found != tensors.end());
    tensors_.push_back(stream ? nullptr : &*found);
  }
  sizes_.resize(chains_.sources.size());
  for (const Weight& weight : chains_.weights) {
    const Symbols& symbols = weight.symbols;
    const wide::Tensor* const tensor = tensors_[symbols.source];
    const Opened& blob = opened_[chains_.sources[symbols.source].blob];
    const auto size = tensor ? tensor->size() : static_cast<int64_t>(blob.stream.size());
    require(symbols.first + onnx::element_count(symbols.dims) <= size);
    if (tensor && !is_direct(weight)) sizes_[symbols.source] = size;
  }
}

void Decoder::decode(const std::vector<char*>& places, int threads) {
  std::vector<Task> tasks;
  symbols_.resize(sizes_.size());
  for (size_t i = 0; i < sizes_.size(); ++i) {
    if (!sizes_[i]) continue;
    Opened& blob = opened_[chains_.sources[i].blob];
    symbols_[i].reset(new char[static_cast<size_t>(sizes_[i] * (blob.segment.wide ? 2 : 1))]);
    add_pieces(blob.segment, *tensors_[i], &tasks, [this, i, &blob](int64_t begin, int64_t end) {
      return wide::decode_pieces(blob.segment, *tensors_[i], sizes_[i], begin, end, symbols_[i].get(), TK_ISA_AUTO);
    });
  }
  for (size_t i = 0; i < chains_.weights.size(); ++i) {
    const Weight& weight = chains_.weights[i];
    if (!is_direct(weight)) continue;
    const size_t source = weight.symbols.source;
    const wide::Segment& segment = opened_[chains_.sources[source].blob].segment;
    add_pieces(segment, *tensors_[source], &tasks, [this, &weight, to = places[i]](int64_t begin, int64_t end) {
      return decode_direct(weight, begin, end, to);
    });
  }
  run(std::move(tasks), threads);
  for (size_t i = 0; i < chains_.weights.size(); ++i)
    if (!is_direct(chains_.weights[i])) finish(chains_.weights[i], places[i], threads);
}

tk_status Decoder::decode_direct(const Weight& weight, int64_t begin, int64_t end, void* to) const {
  const wide::Segment& segment = opened_[chains_.sources[weight.symbols.source].blob].segment;
  const wide::Tensor& tensor = *tensors_[weight.symbols.source];
  const int64_t count = onnx::element_count(weight.symbols.dims);
  if (weight.kind == Weight::kSymbols) return wide::decode_pieces(segment, tensor, count, begin, end, to, TK_ISA_AUTO);
  if (weight.kind == Weight::kLookedUp)
    return wide::look_up_pieces(segment, tensor, codebook_of(weight), count, begin, end, to, TK_ISA_AUTO);
  return wide::dequantize_pieces(segment, tensor, how_of(weight), begin, end, to, TK_ISA_AUTO);
}

// Weights whose symbols lie in memory.
void Decoder::finish(const Weight& weight, char* to, int threads) const {
  const size_t source = weight.symbols.source;
  const Opened& blob = opened_[chains_.sources[source].blob];
  const int64_t first = weight.symbols.first, count = onnx::element_count(weight.symbols.dims);
  if (!is_stream(source) && !blob.segment.wide) {
    finish_symbols(weight, reinterpret_cast<const int8_t*>(symbols_[source].get()) + first, count, to, threads);
    return;
  }
  const int16_t* const symbols =
      (is_stream(source) ? blob.stream.data() : reinterpret_cast<const int16_t*>(symbols_[source].get())) + first;
  if (weight.symbols.is_narrow) {
    std::vector<int8_t> narrow(static_cast<size_t>(count));
    std::transform(symbols, symbols + count, narrow.begin(), [](int16_t s) { return static_cast<int8_t>(s); });
    finish_symbols(weight, narrow.data(), count, to, threads);
  } else {
    finish_symbols(weight, symbols, count, to, threads);
  }
}

}  // namespace toolkit::load
