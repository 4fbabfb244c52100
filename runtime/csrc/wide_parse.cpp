// Reads a wide body: every field is checked before anything is allocated from it (FORMAT.md 2.2 to 2.5).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "wide_format.h"
#include "wide_search.h"
#include "wide_step.h"
#include "wide_tables.h"

namespace toolkit::wide {
namespace {

int64_t words_of_bytes(int64_t bytes) { return (bytes + 1) / 2; }

// Reads a byte string; false where the unused half of its last word is not zero.
bool unpack_bytes(const uint16_t* words, int64_t bytes, void* out) {
  auto* to = static_cast<uint8_t*>(out);
  for (int64_t i = 0; i < bytes; ++i) to[i] = static_cast<uint8_t>(words[i / 2] >> (i % 2 * 8));
  return bytes % 2 == 0 || words[bytes / 2] >> 8 == 0;
}

// The header as read, not yet believed.
struct Header {
  int num_tensors, num_sets;
  uint16_t flags;
  int num_tables;
  int64_t lanes, blocks, steps, code_words, exceptions, class_bytes, table_bytes;
};

Header read_header(const uint16_t* w) {
  return {w[0],
          w[1],
          w[2],
          w[3],
          load_u32(w + 4),
          load_u32(w + 6),
          load_u32(w + 8),
          load_u32(w + 10),
          load_u32(w + 12),
          load_u32(w + 14),
          load_u32(w + 16)};
}

tk_status read_directory(const uint16_t* w, const Header& h, Segment* s) {
  int64_t lanes = 0, blocks = 0, steps = 0, class_bytes = 0;
  s->tensors.resize(static_cast<size_t>(h.num_tensors));
  for (auto& t : s->tensors) {
    t.a = load_u32(w);
    t.b = load_u32(w + 2);
    t.c = load_u32(w + 4);
    t.k = load_u32(w + 6);
    const uint16_t bits = w[8];
    t.base = static_cast<int16_t>(w[9]);
    w += kDirectoryWords;
    t.set = bits & 0xff;
    t.low_bits = bits >> 12;
    if (t.a < 1 || t.b < 1 || t.c < 1 || t.k < 1) return TK_ERR_HEADER;
    if (t.a > kMaxSymbols / t.b || t.rows() > kMaxSymbols / t.c || t.k > t.rows()) return TK_ERR_HEADER;
    if (t.set >= h.num_sets || (bits & 0x800) || t.low_bits > (s->wide ? 8 : 0)) return TK_ERR_HEADER;
    // Offsets into the class stream stand in for the pointers until the stream is there.
    if (bits & 0x100) class_bytes += t.a;
    if (bits & 0x200) class_bytes += t.b;
    if (bits & 0x400) class_bytes += t.c;
    t.first_lane = lanes;
    t.num_lanes = (t.rows() + t.k - 1) / t.k;
    t.first_block = blocks;
    t.num_blocks = (t.num_lanes + kLanes - 1) / kLanes;
    lanes += t.num_lanes;
    blocks += t.num_blocks;
    steps = std::max(steps, t.lane_stride());
  }
  if (lanes != h.lanes || blocks != h.blocks || steps != h.steps || class_bytes != h.class_bytes) return TK_ERR_HEADER;
  if (!is_moderate(lanes, steps, h.code_words)) return TK_ERR_HEADER;
  s->num_lanes = lanes;
  s->num_blocks = blocks;
  s->num_steps = steps;
  return TK_OK;
}

void point_classes(const uint16_t* w, Segment* s) {
  const int8_t* at = s->class_stream.data();
  for (auto& t : s->tensors) {
    const uint16_t bits = w[8];
    w += kDirectoryWords;
    if (bits & 0x100) t.class_a = at, at += t.a;
    if (bits & 0x200) t.class_b = at, at += t.b;
    if (bits & 0x400) t.class_c = at, at += t.c;
  }
}

// Whether each block has enough code words for its symbols.
// A symbol costs a lane's state at least a 4352nd part, log2(4352 / 4351) bits, as no frequency is above 4095; a lane
// begins with 16 bits more than it ends with, and a code word adds fewer than 17. So a block of l lanes and w words
// cannot hold more than 65536 (l + w) symbols, and a small blob cannot ask for much memory.
bool blocks_are_plausible(const Segment& s) {
  size_t block = 0;
  for (const Tensor& t : s.tensors) {
    for (int64_t lane = 0; lane < t.num_lanes; lane += kLanes, ++block) {
      const int64_t lanes = std::min<int64_t>(kLanes, t.num_lanes - lane);
      const int64_t rows = std::min(lanes * t.k, t.rows() - lane * t.k);
      const int64_t words = s.block_begin[block + 1] - s.block_begin[block];
      if (rows * t.c > kMostSymbolsPerWord * (lanes + words)) return false;
    }
  }
  return true;
}

// Sets and tables, from the set directory and the table stream (FORMAT.md 2.4).
tk_status read_sets(const uint16_t* directory, const Header& h, Segment* s) {
  int64_t mapped = 0, thresholds = 0;
  bool trellis = false;
  s->sets.resize(static_cast<size_t>(h.num_sets));
  for (auto& set : s->sets) {
    set.contexts = *directory & ~kTrellisSet & 0xff;
    set.quantisers = *directory & kTrellisSet ? 2 : 1;
    set.classes = *directory++ >> 8;
    trellis = trellis || set.quantisers > 1;
    if ((set.contexts != 1 && set.contexts != kMaxContexts) || set.classes < 1 || set.classes > kMaxClasses)
      return TK_ERR_HEADER;
    mapped += set.places();
    if (set.contexts > 1) thresholds += 2 * set.classes;
  }
  if (trellis != ((h.flags & kFlagTrellis) != 0)) return TK_ERR_HEADER;
  const int64_t size = static_cast<int64_t>(s->table_stream.size());
  const int64_t fixed = thresholds + mapped + 2 * h.num_tables;
  if (size < fixed) return TK_ERR_HEADER;
  const uint8_t* at = s->table_stream.data();
  const uint8_t* map = at + thresholds;
  const uint8_t* const firsts = map + mapped;
  const uint8_t* const counts = firsts + h.num_tables;
  const uint8_t* codes = counts + h.num_tables;
  const auto count_of = [counts](int i) { return counts[i] == kFullCount ? 256 : static_cast<int>(counts[i]); };
  int64_t total = 0;
  for (int i = 0; i < h.num_tables; ++i) total += count_of(i);
  if (fixed + total != size) return TK_ERR_HEADER;
  for (auto& set : s->sets) {
    const int tables = set.places();
    for (int i = 0; i < tables; ++i)
      if (map[i] >= h.num_tables) return TK_ERR_TABLE;
    std::copy_n(map, tables, set.map);
    map += tables;
    if (set.contexts == 1) continue;
    std::copy_n(at, set.classes, set.t1);
    std::copy_n(at + set.classes, set.classes, set.t2);
    at += 2 * set.classes;
    for (int i = 0; i < set.classes; ++i)
      if (set.t1[i] < 1 || set.t2[i] < set.t1[i]) return TK_ERR_TABLE;
  }
  for (int i = 0; i < h.num_tables; ++i)
    if (static_cast<int8_t>(firsts[i]) + count_of(i) > 128) return TK_ERR_TABLE;
  s->slots.reset(new uint32_t[static_cast<size_t>(h.num_tables) * kSlots]);  // build_slots writes all of it
  for (int i = 0; i < h.num_tables; ++i) {
    uint32_t* const slots = s->slots.get() + static_cast<size_t>(i) * kSlots;
    if (!build_slots(static_cast<int8_t>(firsts[i]), codes, count_of(i), slots)) return TK_ERR_TABLE;
    codes += count_of(i);
  }
  for (auto& set : s->sets) set.slots = s->slots.get();
  return TK_OK;
}

// How many of `count` indices have each class, at class + 128; an absent array counts as zeros.
std::array<int64_t, 256> count_classes(const int8_t* classes, int64_t count) {
  std::array<int64_t, 256> counts{};
  if (!classes) counts[128] = count;
  for (int64_t i = 0; classes && i < count; ++i) ++counts[static_cast<size_t>(classes[i] + 128)];
  return counts;
}

// Adds the numbers of a tensor's symbols in each class of its set.
void add_class_counts(const Tensor& t, int classes, ClassShares* counts) {
  const auto a = count_classes(t.class_a, t.a), b = count_classes(t.class_b, t.b), c = count_classes(t.class_c, t.c);
  std::array<int64_t, 256> rows{};  // at row class + 128
  for (int i = 0; i < 256; ++i)
    for (int j = 0; a[static_cast<size_t>(i)] && j < 256; ++j)
      rows[static_cast<size_t>(row_class_of(t.base + i - 128 + j - 128) + 128)] +=
          a[static_cast<size_t>(i)] * b[static_cast<size_t>(j)];
  for (int i = 0; i < 256; ++i)
    for (int j = 0; rows[static_cast<size_t>(i)] && j < 256; ++j)
      (*counts)[static_cast<size_t>(class_of(i - 128, j - 128, classes))] +=
          static_cast<double>(rows[static_cast<size_t>(i)]) * static_cast<double>(c[static_cast<size_t>(j)]);
}

// Tables as search trees, where they serve decoding.
void plant_trees(int num_tables, Segment* s) {
  s->trees.resize(static_cast<size_t>(num_tables));
  std::vector<ClassShares> shares(s->sets.size(), ClassShares{});
  std::vector<double> symbols(s->sets.size());
  for (const Tensor& t : s->tensors) {
    const auto number = static_cast<size_t>(t.set);
    const TableSet& set = s->sets[number];
    add_class_counts(t, set.classes, &shares[number]);
    symbols[number] += static_cast<double>(t.size());
    if (!has_one_table(set, t)) continue;
    const auto table = only_table(set, t);
    if (!s->trees[table]) s->trees[table] = make_tree(set.slots + table * kSlots);
  }
  for (size_t i = 0; i < s->sets.size(); ++i) {
    for (double& share : shares[i]) share /= std::max(symbols[i], 1.0);
    s->sets[i].forest = make_forest(s->sets[i], s->sets[i].slots, shares[i]);
  }
}

tk_status read_nested(const uint16_t* body, int64_t num_words, const Header& h, Segment* s) {
  Segment inner;
  if (tk_status status = parse_segment(body, num_words, true, &inner)) return status;
  if (inner.tensors.size() != 2 || inner.wide) return TK_ERR_HEADER;
  const int64_t wanted[2] = {h.class_bytes, h.table_bytes};
  for (int i = 0; i < 2; ++i) {
    const Tensor& t = inner.tensors[static_cast<size_t>(i)];
    // A stream is padded to whole rows of its tensor, so less than a row and a lane more than asked for.
    if (t.size() < std::max<int64_t>(wanted[i], 1)) return TK_ERR_HEADER;
    if (t.size() - wanted[i] > t.c) return TK_ERR_HEADER;
    std::vector<int8_t> symbols(static_cast<size_t>(t.size()));
    if (tk_status status = decode_tensor(inner, t, symbols.data(), 1, TK_ISA_AUTO)) return status;
    for (int64_t j = wanted[i]; j < t.size(); ++j)
      if (symbols[static_cast<size_t>(j)] != 0) return TK_ERR_HEADER;
    symbols.resize(static_cast<size_t>(wanted[i]));
    if (i == 0)
      s->class_stream = std::move(symbols);
    else
      s->table_stream.assign(symbols.begin(), symbols.end());
  }
  return TK_OK;
}

tk_status read_exceptions(const uint16_t* w, int64_t count, Segment* s) {
  s->exceptions.resize(static_cast<size_t>(count));
  int64_t last = -1;
  size_t t = 0;
  for (auto& e : s->exceptions) {
    e.index = load_u32(w);
    e.value = static_cast<int16_t>(w[2]);
    const int64_t lane = e.index / s->num_steps, step = e.index % s->num_steps;
    if (w[3] != 0 || e.index <= last || lane >= s->num_lanes) return TK_ERR_EXCEPTION;
    while (lane >= s->tensors[t].first_lane + s->tensors[t].num_lanes) ++t;
    const Tensor& tensor = s->tensors[t];
    const int64_t flat = (lane - tensor.first_lane) * tensor.lane_stride() + step;
    if (step >= tensor.lane_stride() || flat >= tensor.size()) return TK_ERR_EXCEPTION;
    last = e.index;
    w += kExceptionWords;
  }
  return TK_OK;
}

}  // namespace

tk_status parse_segment(const uint16_t* body, int64_t num_words, bool nested, Segment* s) {
  if (num_words < kHeaderWords) return TK_ERR_TRUNCATED;
  const Header h = read_header(body);
  if (h.num_tensors < 1 || h.num_sets < 1 || h.num_sets > kMaxSets) return TK_ERR_HEADER;
  if ((h.flags & ~(kFlagWide | kFlagNested | kFlagTrellis)) || h.num_tables < 1 || h.num_tables > kMaxTables)
    return TK_ERR_HEADER;
  s->wide = h.flags & kFlagWide;
  if (nested && h.flags) return TK_ERR_HEADER;
  if (!s->wide && h.exceptions) return TK_ERR_HEADER;

  const uint16_t* at = body + kHeaderWords;
  const uint16_t* const end = body + num_words;
  const auto left = [&] { return static_cast<int64_t>(end - at); };
  const int64_t directories = static_cast<int64_t>(h.num_tensors) * kDirectoryWords + h.num_sets;
  if (left() < directories) return TK_ERR_TRUNCATED;
  const uint16_t* const tensor_directory = at;
  const uint16_t* const set_directory = at + static_cast<int64_t>(h.num_tensors) * kDirectoryWords;
  if (tk_status status = read_directory(tensor_directory, h, s)) return status;
  at += directories;

  const uint16_t* const side = at;
  if (h.flags & kFlagNested) {
    if (left() < 2) return TK_ERR_TRUNCATED;
    const int64_t inner_words = load_u32(at);
    at += 2;
    if (left() < inner_words) return TK_ERR_TRUNCATED;
    if (tk_status status = read_nested(at, inner_words, h, s)) return status;
    at += inner_words;
  } else {
    const int64_t class_words = words_of_bytes(h.class_bytes), table_words = words_of_bytes(h.table_bytes);
    if (left() < class_words + table_words) return TK_ERR_TRUNCATED;
    s->class_stream.resize(static_cast<size_t>(h.class_bytes));
    s->table_stream.resize(static_cast<size_t>(h.table_bytes));
    if (!unpack_bytes(at, h.class_bytes, s->class_stream.data()) ||
        !unpack_bytes(at + class_words, h.table_bytes, s->table_stream.data()))
      return TK_ERR_HEADER;
    at += class_words + table_words;
  }
  s->side_words = at - side + directories + kHeaderWords;
  point_classes(tensor_directory, s);
  if (tk_status status = read_sets(set_directory, h, s)) return status;
  plant_trees(h.num_tables, s);

  const int64_t fixed = h.exceptions * kExceptionWords + 2 * h.blocks + 2 * h.lanes;
  if (left() < fixed) return TK_ERR_TRUNCATED;
  if (tk_status status = read_exceptions(at, h.exceptions, s)) return status;
  at += h.exceptions * kExceptionWords;
  s->block_begin.resize(static_cast<size_t>(h.blocks) + 1);
  int64_t total = 0;
  for (int64_t i = 0; i < h.blocks; ++i) {
    s->block_begin[static_cast<size_t>(i)] = total;
    total += load_u32(at + 2 * i);
  }
  s->block_begin.back() = total;
  at += 2 * h.blocks;
  if (total != h.code_words) return TK_ERR_HEADER;
  s->states = at;
  for (int64_t i = 0; i < h.lanes; ++i)
    if (load_u32(at + 2 * i) < kStateLow) return TK_ERR_STREAM;
  at += 2 * h.lanes;
  if (left() != total) return TK_ERR_TRUNCATED;
  if (!blocks_are_plausible(*s)) return TK_ERR_STREAM;
  s->num_code_words = total;
  s->words = at;
  s->readable_end = end;
  return TK_OK;
}

}  // namespace toolkit::wide
