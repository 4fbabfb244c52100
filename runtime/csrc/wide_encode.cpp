// The wide encoder: plans the tensors, codes their blocks, lays out the segment.
// SPDX-License-Identifier: Apache-2.0
#include "wide_encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "threads.h"
#include "wide_model.h"
#include "wide_step.h"

namespace toolkit::wide {
namespace {

constexpr double kLaneBits = 32;      // a lane's state
constexpr double kLaneShare = 0.005;  // of its code words, that a lane's state may cost
constexpr int64_t kMaxSteps = 8192;
constexpr int64_t kWantedLanes = 3072;  // enough for decoders that work on all lanes of a segment at once
constexpr int64_t kMinSteps = 256;
constexpr size_t kNestedFrom = 600;  // bytes of side information below which coding it cannot pay

// What a symbol of a table needs: x -> (x / f) * 4096 + x % f + cum.
struct Coder {
  uint64_t inverse;  // floor(2^64 / f) + 1: the upper half of its product with a 32-bit x is x / f
  uint32_t f, cum;
};

std::vector<Coder> make_coders(const SetPlan& set) {
  std::vector<Coder> coders(set.frequency.size());
  for (size_t t = 0; t < set.frequency.size(); t += 256) {
    uint32_t cum = 0;
    for (size_t i = t; i < t + 256; ++i) {
      const uint32_t f = set.frequency[i];
      // 2^64 does not fit: for f = 1 the quotient comes out one too small, which 4095 more in `cum` make good.
      coders[i] = f == 1 ? Coder{~uint64_t{0}, f, cum + kSlots - 1} : Coder{f ? ~uint64_t{0} / f + 1 : 0, f, cum};
      cum += f;
    }
  }
  return coders;
}

struct Block {
  std::vector<uint16_t> words;
  uint32_t states[kLanes];
};

// Moves the low word of *x in front of `to` where `due`; without a branch, which could not be predicted.
inline uint16_t* emit(bool due, uint32_t* x, uint16_t* to) {
  to[-1] = static_cast<uint16_t>(*x);
  *x >>= due ? 16 : 0;
  return to - due;
}

// Codes block `block` of a tensor, backwards. `low` holds the raw low bits by symbol, or null.
template <int Contexts>
void encode_block(const TensorPlan& p, const SetPlan& set, const std::vector<Coder>& coders, const uint8_t* low,
                  int64_t block, std::vector<uint16_t>* buffer, Block* out) {
  const int64_t stride = p.k * p.c, lanes_in_tensor = (p.rows() + p.k - 1) / p.k;
  const int64_t first_lane = block * kLanes;
  const int lanes = static_cast<int>(std::min<int64_t>(kLanes, lanes_in_tensor - first_lane));
  const auto rows_of = [&](int64_t lane) { return std::min(p.k, p.rows() - lane * p.k); };
  const int64_t steps = rows_of(first_lane) * p.c;
  // One word more than can be due, since emit writes before it decides.
  buffer->resize(static_cast<size_t>(steps * lanes * (p.low_bits ? 2 : 1) + 1));
  uint16_t* const end = buffer->data() + buffer->size();
  uint16_t* to = end;
  uint32_t x[kLanes];
  std::fill_n(x, kLanes, kStateLow);
  int row_class[kLanes];
  const Coder* row_table[kLanes];
  const int8_t* const symbols = p.symbols + first_lane * stride;
  const int8_t* const col = p.class_c.empty() ? nullptr : p.class_c.data();
  for (int64_t r = rows_of(first_lane) - 1; r >= 0; --r) {
    int active = lanes;
    while (rows_of(first_lane + active - 1) <= r) --active;
    for (int i = 0; i < active; ++i) {
      row_class[i] = p.row_class((first_lane + i) * p.k + r);
      row_table[i] = coders.data() + class_of(row_class[i], 0, set.classes) * 256 + 128;
    }
    for (int64_t c = p.c - 1; c >= 0; --c) {
      const int64_t step = r * p.c + c;
      if (low) {
        const uint8_t* const from = low + first_lane * stride + step;
        for (int i = active - 1; i >= 0; --i) {
          to = emit((static_cast<uint64_t>(x[i]) << p.low_bits) >> 32, &x[i], to);
          x[i] = x[i] << p.low_bits | from[i * stride];
        }
      }
      const int8_t* const from = symbols + step;
      for (int i = active - 1; i >= 0; --i) {
        const int8_t* const at = from + i * stride;
        const Coder* table = row_table[i];
        if (Contexts > 1) {
          const int y = class_of(row_class[i], col ? col[c] : 0, set.classes);
          const int z = context_of(c ? at[-1] : 0, set.t1[static_cast<size_t>(y)], set.t2[static_cast<size_t>(y)]);
          table = coders.data() + (y * kMaxContexts + z) * 256 + 128;
        } else if (col) {
          table = coders.data() + class_of(row_class[i], col[c], set.classes) * 256 + 128;
        }
        const Coder coder = table[*at];
        to = emit(x[i] >> 20 >= coder.f, &x[i], to);
        const auto q = static_cast<uint32_t>(static_cast<unsigned __int128>(coder.inverse) * x[i] >> 64);
        x[i] = (q << kProbabilityBits) + (x[i] - q * coder.f) + coder.cum;
      }
    }
  }
  out->words.assign(to, end);
  std::copy_n(x, kLanes, out->states);
}

// How many rows a lane takes: lanes cost their states, and give speed.
void choose_lanes(int64_t wanted_steps, TensorPlan* p) {
  int64_t lanes = (p->size() + wanted_steps - 1) / wanted_steps;
  if (lanes > kLanes / 2) lanes = (lanes + kLanes - 1) / kLanes * kLanes;
  p->k = std::max<int64_t>(1, (p->rows() + lanes - 1) / lanes);
}

void put_u32(std::vector<uint16_t>* w, uint64_t v) {
  w->push_back(static_cast<uint16_t>(v));
  w->push_back(static_cast<uint16_t>(v >> 16));
}

void put_bytes(std::vector<uint16_t>* w, const std::vector<uint8_t>& bytes) {
  for (size_t i = 0; i < bytes.size(); i += 2)
    w->push_back(static_cast<uint16_t>(bytes[i] | (i + 1 < bytes.size() ? bytes[i + 1] << 8 : 0)));
}

struct Input {
  std::vector<int8_t> high;                             // wide symbols: what is coded
  std::vector<uint8_t> low;                             // wide symbols: raw bits
  std::vector<std::pair<int64_t, int16_t>> exceptions;  // flat index, value
};

// Splits 16-bit symbols into a coded part of 8 bits, raw low bits and exceptions (FORMAT.md 2.6 step 6, 2.7).
int split_wide(const int16_t* s, int64_t size, Input* in) {
  std::vector<int64_t> magnitude(17);  // symbols by bits of their magnitude
  double mean = 0;
  for (int64_t i = 0; i < size; ++i) {
    const int m = s[i] < 0 ? -(s[i] + 1) : s[i];
    int bits = 0;
    while (m >> bits) ++bits;
    ++magnitude[static_cast<size_t>(bits)];
    mean += m;
  }
  mean /= static_cast<double>(std::max<int64_t>(size, 1));
  // Rare large symbols become exceptions of 64 bits; low bits that say nothing go raw, the coded part keeping a mean
  // magnitude of at least about 12.
  int low_bits = 0;
  for (; low_bits < 8; ++low_bits) {
    int64_t above = 0;
    for (int b = low_bits + 8; b <= 16; ++b) above += magnitude[static_cast<size_t>(b)];
    if (static_cast<double>(above) * 64 <= 0.002 * static_cast<double>(size) * 8 && mean / (1 << low_bits) < 24) break;
  }
  in->high.resize(static_cast<size_t>(size));
  in->low.resize(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    const int v = s[i] >> low_bits;
    in->low[static_cast<size_t>(i)] = static_cast<uint8_t>(s[i] & ((1 << low_bits) - 1));
    in->high[static_cast<size_t>(i)] = static_cast<int8_t>(v < -128 || v > 127 ? 0 : v);
    if (v < -128 || v > 127) in->exceptions.emplace_back(i, s[i]);
  }
  return low_bits;
}

std::vector<uint8_t> table_bytes(const std::vector<SetPlan>& sets) {
  std::vector<uint8_t> out;
  for (const auto& set : sets)
    if (set.contexts > 1) {
      out.insert(out.end(), set.t1.begin(), set.t1.begin() + set.classes);
      out.insert(out.end(), set.t2.begin(), set.t2.begin() + set.classes);
    }
  for (const auto& set : sets)
    for (int8_t first : set.firsts) out.push_back(static_cast<uint8_t>(first));
  for (const auto& set : sets)
    for (const auto& codes : set.codes) out.push_back(static_cast<uint8_t>(std::min<size_t>(codes.size(), kFullCount)));
  for (const auto& set : sets)
    for (const auto& codes : set.codes) out.insert(out.end(), codes.begin(), codes.end());
  return out;
}

// Sets that no tensor uses go; the others move down.
void drop_unused_sets(std::vector<TensorPlan>* plans, std::vector<SetPlan>* sets, std::vector<Counts>* counts) {
  for (int q = static_cast<int>(sets->size()) - 1; q >= 0; --q) {
    if (std::any_of(plans->begin(), plans->end(), [q](const TensorPlan& p) { return p.set == q; })) continue;
    sets->erase(sets->begin() + q);
    counts->erase(counts->begin() + q);
    for (auto& p : *plans)
      if (p.set > q) --p.set;
  }
}

struct Coded {
  std::vector<TensorPlan> plans;
  std::vector<SetPlan> sets;
  std::vector<Block> blocks;      // tensor by tensor
  std::vector<int> block_tensor;  // which tensor a block belongs to
};

void build_tables(int resolution, int threads, std::vector<TensorPlan>* plans, std::vector<SetPlan>* sets) {
  sets->assign(2, {});
  (*sets)[1].contexts = kMaxContexts;
  std::vector<Counts> counts;
  for (auto& set : *sets) {
    set_thresholds(resolution, 0, &set);
    counts.emplace_back(static_cast<size_t>(set.classes * set.contexts * 256));
  }
  drop_unused_sets(plans, sets, &counts);
  const auto count_all = [&] {
    // Each piece of work counts into its own copy.
    const auto n = static_cast<int64_t>(plans->size());
    std::vector<std::vector<Counts>> partial(static_cast<size_t>(n));
    for (size_t q = 0; q < sets->size(); ++q)
      counts[q].assign(static_cast<size_t>((*sets)[q].classes * (*sets)[q].contexts * 256), 0);
    parallel_for(n, threads, [&](int64_t begin, int64_t end) {
      std::vector<Counts> own(counts);
      for (int64_t i = begin; i < end; ++i) {
        const TensorPlan& p = (*plans)[static_cast<size_t>(i)];
        count_symbols(p, (*sets)[static_cast<size_t>(p.set)], &own[static_cast<size_t>(p.set)]);
      }
      partial[static_cast<size_t>(begin)] = std::move(own);
    });
    for (const auto& own : partial)
      for (size_t q = 0; q < own.size(); ++q)
        for (size_t i = 0; i < counts[q].size(); ++i) counts[q][i] += own[q][i];
  };
  count_all();
  bool recount = false;
  for (size_t q = 0; q < sets->size(); ++q) {
    SetPlan& set = (*sets)[q];
    const int classes = set.classes, cut = trim_classes(&set, &counts[q]);
    // Symbols of the classes cut off now stand under other thresholds, so in other contexts.
    recount = recount || (set.contexts > 1 && set.classes < classes);
    set_thresholds(resolution, cut, &set);
    for (auto& p : *plans)
      if (p.set == static_cast<int>(q)) p.base -= cut;
  }
  if (recount) count_all();
  for (size_t q = 0; q < sets->size(); ++q) make_tables(counts[q], &(*sets)[q]);
}

Coded code(std::vector<TensorPlan> plans, const std::vector<Input>* inputs, const tk_wide_options& options,
           int resolution, int64_t fixed_steps) {
  Coded out;
  const ModelOptions model{options.contexts, options.classes != 0, resolution};
  parallel_for(static_cast<int64_t>(plans.size()), options.threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) plan_tensor(model, &plans[static_cast<size_t>(i)]);
  });
  double bits = 0, symbols = 0;
  for (const auto& p : plans)
    bits += p.bits + p.low_bits * static_cast<double>(p.size()), symbols += static_cast<double>(p.size());
  int64_t steps = fixed_steps;
  if (!steps) {
    const double enough = kLaneBits / kLaneShare / std::max(bits / symbols, 0.05);
    steps = std::max(static_cast<int64_t>(enough), std::min(kMaxSteps, static_cast<int64_t>(symbols) / kWantedLanes));
    steps = std::clamp(steps, kMinSteps, 4 * kMaxSteps);
  }
  for (auto& p : plans) choose_lanes(steps, &p);
  build_tables(resolution, options.threads, &plans, &out.sets);

  std::vector<std::vector<Coder>> coders;
  for (const auto& set : out.sets) coders.push_back(make_coders(set));
  std::vector<int64_t> block_in_tensor;
  for (size_t t = 0; t < plans.size(); ++t) {
    const int64_t lanes = (plans[t].rows() + plans[t].k - 1) / plans[t].k;
    for (int64_t b = 0; b < (lanes + kLanes - 1) / kLanes; ++b) {
      out.block_tensor.push_back(static_cast<int>(t));
      block_in_tensor.push_back(b);
    }
  }
  out.blocks.resize(out.block_tensor.size());
  parallel_for(static_cast<int64_t>(out.blocks.size()), options.threads, [&](int64_t begin, int64_t end) {
    std::vector<uint16_t> buffer;
    for (int64_t i = begin; i < end; ++i) {
      const auto t = static_cast<size_t>(out.block_tensor[static_cast<size_t>(i)]);
      const auto q = static_cast<size_t>(plans[t].set);
      const auto encode = out.sets[q].contexts > 1 ? encode_block<kMaxContexts> : encode_block<1>;
      encode(plans[t], out.sets[q], coders[q], inputs ? (*inputs)[t].low.data() : nullptr,
             block_in_tensor[static_cast<size_t>(i)], &buffer, &out.blocks[static_cast<size_t>(i)]);
    }
  });
  out.plans = std::move(plans);
  return out;
}

std::vector<uint16_t> lay_out(const Coded& coded, const std::vector<Input>* inputs, const std::vector<uint8_t>& classes,
                              const std::vector<uint8_t>& tables, const std::vector<uint16_t>* nested) {
  int64_t lanes = 0, steps = 0, words = 0, exceptions = 0;
  for (const auto& p : coded.plans) {
    lanes += (p.rows() + p.k - 1) / p.k;
    steps = std::max(steps, p.k * p.c);
  }
  for (const auto& b : coded.blocks) words += static_cast<int64_t>(b.words.size());
  if (inputs)
    for (const auto& in : *inputs) exceptions += static_cast<int64_t>(in.exceptions.size());
  std::vector<uint16_t> w;
  w.reserve(kHeaderWords + coded.plans.size() * kDirectoryWords + coded.sets.size() +
            (classes.size() + tables.size()) / 2 + 4 +
            static_cast<size_t>(exceptions * kExceptionWords + 2 * lanes + words) + 2 * coded.blocks.size());
  w.push_back(static_cast<uint16_t>(coded.plans.size()));
  w.push_back(static_cast<uint16_t>(coded.sets.size()));
  w.push_back(static_cast<uint16_t>((inputs ? kFlagWide : 0) | (nested ? kFlagNested : 0)));
  w.push_back(0);
  for (const int64_t v : {lanes, static_cast<int64_t>(coded.blocks.size()), steps, words, exceptions,
                          static_cast<int64_t>(classes.size()), static_cast<int64_t>(tables.size())})
    put_u32(&w, static_cast<uint64_t>(v));
  for (const auto& p : coded.plans) {
    for (const int64_t v : {p.a, p.b, p.c, p.k}) put_u32(&w, static_cast<uint64_t>(v));
    w.push_back(static_cast<uint16_t>(p.set | (p.class_a.empty() ? 0 : 0x100) | (p.class_b.empty() ? 0 : 0x200) |
                                      (p.class_c.empty() ? 0 : 0x400) | p.low_bits << 12));
    w.push_back(static_cast<uint16_t>(p.base));
  }
  for (const auto& set : coded.sets) w.push_back(static_cast<uint16_t>(set.contexts | set.classes << 8));
  if (nested) {
    put_u32(&w, nested->size());
    w.insert(w.end(), nested->begin(), nested->end());
  } else {
    put_bytes(&w, classes);
    put_bytes(&w, tables);
  }
  if (inputs) {
    int64_t first_lane = 0;
    for (size_t t = 0; t < coded.plans.size(); ++t) {
      const auto& p = coded.plans[t];
      for (const auto& [flat, value] : (*inputs)[t].exceptions) {
        put_u32(&w, static_cast<uint64_t>((first_lane + flat / (p.k * p.c)) * steps + flat % (p.k * p.c)));
        w.push_back(static_cast<uint16_t>(value));
        w.push_back(0);
      }
      first_lane += (p.rows() + p.k - 1) / p.k;
    }
  }
  for (const auto& b : coded.blocks) put_u32(&w, b.words.size());
  size_t block = 0;
  for (const auto& p : coded.plans) {
    const int64_t count = (p.rows() + p.k - 1) / p.k;
    for (int64_t lane = 0; lane < count; ++lane) {
      put_u32(&w, coded.blocks[block].states[lane % kLanes]);
      if (lane % kLanes == kLanes - 1 || lane + 1 == count) ++block;
    }
  }
  for (const auto& b : coded.blocks) w.insert(w.end(), b.words.begin(), b.words.end());
  return w;
}

// The side information as a nested body of two tensors (FORMAT.md 2.4).
std::vector<uint16_t> code_side(const std::vector<uint8_t>& classes, const std::vector<uint8_t>& tables) {
  std::vector<uint8_t> padded[2] = {classes, tables};
  std::vector<TensorPlan> plans(2);
  for (int i = 0; i < 2; ++i) {
    const int64_t size = std::max<int64_t>(1, static_cast<int64_t>(padded[i].size()));
    const int64_t lanes = std::max<int64_t>(1, size / 1024);
    const int64_t c = (size + lanes - 1) / lanes;
    plans[static_cast<size_t>(i)].c = c;
    plans[static_cast<size_t>(i)].b = (size + c - 1) / c;
    padded[i].resize(static_cast<size_t>(plans[static_cast<size_t>(i)].size()));
    plans[static_cast<size_t>(i)].symbols = reinterpret_cast<const int8_t*>(padded[i].data());
  }
  tk_wide_options options{};
  options.contexts = 1;
  options.classes = 0;
  options.threads = 1;
  const Coded coded = code(std::move(plans), nullptr, options, 1, 1024);
  return lay_out(coded, nullptr, {}, table_bytes(coded.sets), nullptr);
}

}  // namespace

std::vector<uint16_t> encode_segment(const tk_tensor* tensors, int64_t count, const tk_wide_options& options) {
  std::vector<TensorPlan> plans(static_cast<size_t>(count));
  std::vector<Input> inputs(options.wide ? static_cast<size_t>(count) : 0);
  int64_t symbols = 0;
  for (size_t i = 0; i < plans.size(); ++i) {
    TensorPlan& p = plans[i];
    p.a = tensors[i].a;
    p.b = tensors[i].b;
    p.c = tensors[i].c;
    symbols += p.size();
    p.symbols = static_cast<const int8_t*>(tensors[i].symbols);
    if (options.wide) {
      p.low_bits = split_wide(static_cast<const int16_t*>(tensors[i].symbols), p.size(), &inputs[i]);
      p.symbols = inputs[i].high.data();
    }
  }
  const auto* in = options.wide ? &inputs : nullptr;
  // Fine classes pay where there are symbols enough to fill their tables: small models try coarser ones as well.
  std::vector<int> resolutions{4};
  if (symbols < 4'000'000) resolutions.push_back(2);
  if (symbols < 500'000) resolutions.push_back(1);
  std::vector<uint16_t> best;
  for (const int resolution : resolutions) {
    const Coded coded = code(plans, in, options, resolution, options.steps);
    std::vector<uint8_t> classes;
    for (const auto& p : coded.plans)
      for (const auto* axis : {&p.class_a, &p.class_b, &p.class_c})
        for (int8_t v : *axis) classes.push_back(static_cast<uint8_t>(v));
    const std::vector<uint8_t> tables = table_bytes(coded.sets);
    std::vector<uint16_t> words;
    if (classes.size() + tables.size() >= kNestedFrom) {
      const std::vector<uint16_t> nested = code_side(classes, tables);
      if (2 * nested.size() < classes.size() + tables.size()) words = lay_out(coded, in, classes, tables, &nested);
    }
    if (words.empty()) words = lay_out(coded, in, classes, tables, nullptr);
    if (best.empty() || words.size() < best.size()) best = std::move(words);
  }
  return best;
}

}  // namespace toolkit::wide
