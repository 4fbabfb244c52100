// Canonical Huffman coder with codes of at most 12 bits (FORMAT.md 4); lengths by package-merge
// (Larmore and Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", 1990).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <memory>

#include "small_bodies.h"

namespace toolkit {
namespace {

constexpr int kMaxLength = 12;
constexpr int kSlots = 1 << kMaxLength;
constexpr int64_t kHuffmanHeader = 4;
constexpr int kMaxAlphabet = 4096;

using Lengths = std::vector<int>;

struct Slot {
  uint16_t index;
  uint8_t length;
};
using Table = std::array<Slot, kSlots>;

struct HuffmanHeader {
  int64_t n;
  int32_t first;
  int delta_bits;    // 2 to 4
  int start_length;  // the lengths' differences start from here
  int alphabet;      // 1 to kMaxAlphabet
  int64_t length_words;
};

tk_status read_header(const uint16_t* body, int64_t num_words, HuffmanHeader* header) {
  if (num_words < kHuffmanHeader) return TK_ERR_TRUNCATED;
  header->n = small_count(body);
  header->delta_bits = (body[1] >> 8) & 15;
  header->start_length = body[1] >> 12;
  header->first = static_cast<int16_t>(body[2]);
  header->alphabet = body[3];
  if (header->n < 1 || header->alphabet < 1 || header->alphabet > kMaxAlphabet) return TK_ERR_HEADER;
  if (header->delta_bits < 2 || header->delta_bits > 4) return TK_ERR_HEADER;
  if (header->first + header->alphabet - 1 > 32767) return TK_ERR_HEADER;
  header->length_words = packed_words(header->alphabet, header->delta_bits);
  if (num_words < kHuffmanHeader + header->length_words) return TK_ERR_TRUNCATED;
  return TK_OK;
}

int delta_bias(int delta_bits) { return (1 << (delta_bits - 1)) - 1; }

Lengths read_lengths(const HuffmanHeader& header, const uint16_t* body) {
  Lengths lengths(static_cast<size_t>(header.alphabet));
  int length = header.start_length;
  for (int i = 0; i < header.alphabet; ++i) {
    const int code = static_cast<int>(packed_at(body + kHuffmanHeader, header.length_words, i, header.delta_bits));
    length = (length + code - delta_bias(header.delta_bits)) & 15;
    lengths[static_cast<size_t>(i)] = length;
  }
  return lengths;
}

// A code is complete: its lengths fill all slots of the decoding table. An alphabet of one symbol has length 0.
tk_status check_lengths(const Lengths& lengths) {
  if (lengths.size() == 1) return lengths[0] == 0 ? TK_OK : TK_ERR_TABLE;
  int64_t filled = 0;
  for (const int length : lengths) {
    if (length > kMaxLength) return TK_ERR_TABLE;
    if (length > 0) filled += kSlots >> length;
  }
  return filled == kSlots && lengths.front() != 0 && lengths.back() != 0 ? TK_OK : TK_ERR_TABLE;
}

// Slots in the order of code length, then of symbol: the canonical order.
void fill_table(const Lengths& lengths, Table* table) {
  table->fill(Slot{0, 0});
  size_t slot = 0;
  for (int length = 1; length <= kMaxLength; ++length) {
    for (size_t i = 0; i < lengths.size(); ++i) {
      if (lengths[i] != length) continue;
      const size_t end = slot + (static_cast<size_t>(kSlots) >> length);
      for (; slot < end; ++slot) (*table)[slot] = Slot{static_cast<uint16_t>(i), static_cast<uint8_t>(length)};
    }
  }
}

// A symbol that occurs, with its count.
struct Leaf {
  int64_t weight;
  size_t symbol;
};

// Optimal code lengths of at most kMaxLength bits. counts: at least two are positive, at most kSlots.
Lengths optimal_lengths(const std::vector<int64_t>& counts) {
  std::vector<Leaf> leaves;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) leaves.push_back({counts[i], i});
  }
  const auto lighter = [](const Leaf& a, const Leaf& b) { return a.weight < b.weight; };
  std::stable_sort(leaves.begin(), leaves.end(), lighter);
  // Only the number of leaves among the first coins of each level matters, so each level keeps one flag per coin.
  std::vector<std::vector<bool>> is_leaf(kMaxLength);
  std::vector<int64_t> packages;
  for (int level = 0; level < kMaxLength; ++level) {
    std::vector<int64_t> merged;
    std::vector<bool>& flags = is_leaf[static_cast<size_t>(level)];
    size_t leaf = 0;
    size_t package = 0;
    while (leaf < leaves.size() || package < packages.size()) {
      const bool take_leaf =
          package == packages.size() || (leaf < leaves.size() && leaves[leaf].weight <= packages[package]);
      merged.push_back(take_leaf ? leaves[leaf++].weight : packages[package++]);
      flags.push_back(take_leaf);
    }
    packages.clear();
    for (size_t i = 0; i + 1 < merged.size(); i += 2) packages.push_back(merged[i] + merged[i + 1]);
  }
  Lengths lengths(counts.size(), 0);
  size_t taken = 2 * (leaves.size() - 1);
  for (int level = kMaxLength - 1; level >= 0; --level) {
    const std::vector<bool>& flags = is_leaf[static_cast<size_t>(level)];
    taken = std::min(taken, flags.size());
    const auto num_leaves =
        static_cast<size_t>(std::count(flags.begin(), flags.begin() + static_cast<int64_t>(taken), true));
    for (size_t i = 0; i < num_leaves; ++i) ++lengths[leaves[i].symbol];
    taken = 2 * (taken - num_leaves);
  }
  return lengths;
}

// The fewest bits in which the differences of the lengths fit, and the difference before the first made zero.
int choose_delta_bits(const Lengths& lengths) {
  for (int bits = 2; bits < 4; ++bits) {
    const int bias = delta_bias(bits);
    bool fits = true;
    for (size_t i = 1; i < lengths.size(); ++i) {
      const int delta = (lengths[i] - lengths[i - 1] + bias) & 15;
      fits = fits && delta < (1 << bits);
    }
    if (fits) return bits;
  }
  return 4;
}

void append_lengths(const Lengths& lengths, int delta_bits, Words* words) {
  const size_t start = words->size();
  const auto count = static_cast<int64_t>(lengths.size());
  words->resize(start + static_cast<size_t>(packed_words(count, delta_bits)), 0);
  int before = lengths[0];
  for (int64_t i = 0; i < count; ++i) {
    const int length = lengths[static_cast<size_t>(i)];
    const int code = (length - before + delta_bias(delta_bits)) & 15;
    put_packed(words->data() + start, i, delta_bits, static_cast<uint32_t>(code));
    before = length;
  }
}

std::vector<uint32_t> canonical_codes(const Lengths& lengths) {
  std::vector<uint32_t> codes(lengths.size(), 0);
  uint32_t slot = 0;
  for (int length = 1; length <= kMaxLength; ++length) {
    for (size_t i = 0; i < lengths.size(); ++i) {
      if (lengths[i] != length) continue;
      codes[i] = slot >> (kMaxLength - length);
      slot += static_cast<uint32_t>(kSlots) >> length;
    }
  }
  return codes;
}

// Appends codes bit by bit, the first bit in the highest place of the first word.
class BitWriter {
 public:
  explicit BitWriter(Words* words) : words_(words) {}
  void put(uint32_t code, int length) {
    window_ = (window_ << length) | code;
    filled_ += length;
    if (filled_ >= 16) {
      filled_ -= 16;
      words_->push_back(static_cast<uint16_t>(window_ >> filled_));
      window_ &= (1u << filled_) - 1;
    }
  }
  void finish() {
    if (filled_ > 0) words_->push_back(static_cast<uint16_t>(window_ << (16 - filled_)));
    filled_ = 0;
  }

 private:
  Words* words_;
  uint32_t window_ = 0;  // below 2^filled_
  int filled_ = 0;       // below 16 between calls
};

}  // namespace

tk_status check_huffman(const uint16_t* body, int64_t num_words, int64_t* n) {
  HuffmanHeader header{};
  const tk_status status = read_header(body, num_words, &header);
  if (status != TK_OK) return status;
  *n = header.n;
  const tk_status table_status = check_lengths(read_lengths(header, body));
  if (table_status != TK_OK) return table_status;
  const int64_t code_words = num_words - kHuffmanHeader - header.length_words;
  // Each symbol takes 1 to 12 bits, none at all in an alphabet of one.
  const int64_t fewest = header.alphabet > 1 ? packed_words(header.n, 1) : 0;
  const int64_t most = header.alphabet > 1 ? packed_words(header.n, kMaxLength) : 0;
  return code_words >= fewest && code_words <= most ? TK_OK : TK_ERR_TRUNCATED;
}

tk_status decode_huffman(const uint16_t* body, int64_t num_words, int16_t* out) {
  HuffmanHeader header{};
  const tk_status status = read_header(body, num_words, &header);
  if (status != TK_OK) return status;
  const auto table = std::make_unique<Table>();
  fill_table(read_lengths(header, body), table.get());
  const uint16_t* code = body + kHuffmanHeader + header.length_words;
  const uint16_t* end = body + num_words;
  const int64_t total_bits = (end - code) * 16;
  uint32_t window = 0;  // the next `ready` bits, in the low bits
  int ready = 0;
  int64_t used = 0;
  for (int64_t i = 0; i < header.n; ++i) {
    if (ready < kMaxLength) {
      window = (window << 16) | (code < end ? *code++ : 0u);
      ready += 16;
    }
    const Slot slot = (*table)[(window >> (ready - kMaxLength)) & (kSlots - 1)];
    ready -= slot.length;
    used += slot.length;
    out[i] = static_cast<int16_t>(header.first + slot.index);
  }
  return used <= total_bits && total_bits - used < 16 ? TK_OK : TK_ERR_STREAM;
}

tk_status encode_huffman(const int16_t* symbols, int64_t n, Words* words) {
  const auto [low, high] = std::minmax_element(symbols, symbols + n);
  const int32_t first = *low;
  if (*high - first >= kMaxAlphabet) return TK_ERR_ARGUMENT;
  std::vector<int64_t> counts(static_cast<size_t>(*high - first + 1), 0);
  for (int64_t i = 0; i < n; ++i) ++counts[static_cast<size_t>(symbols[i] - first)];
  const Lengths lengths = counts.size() == 1 ? Lengths{0} : optimal_lengths(counts);
  const int delta_bits = choose_delta_bits(lengths);
  words->push_back(static_cast<uint16_t>(n & 0xFFFF));
  words->push_back(static_cast<uint16_t>((n >> 16) | (delta_bits << 8) | (lengths[0] << 12)));
  words->push_back(static_cast<uint16_t>(first));
  words->push_back(static_cast<uint16_t>(counts.size()));
  append_lengths(lengths, delta_bits, words);
  const std::vector<uint32_t> codes = canonical_codes(lengths);
  BitWriter writer(words);
  for (int64_t i = 0; i < n; ++i) {
    const auto index = static_cast<size_t>(symbols[i] - first);
    writer.put(codes[index], lengths[index]);
  }
  writer.finish();
  return TK_OK;
}

}  // namespace toolkit
