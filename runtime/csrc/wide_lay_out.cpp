// A coded segment written out as a body.
// SPDX-License-Identifier: Apache-2.0
#include "wide_lay_out.h"

#include <algorithm>

#include "threads.h"

namespace toolkit::wide {
namespace {

// The counts of a body's header.
struct Totals {
  int64_t lanes = 0, steps = 0, words = 0, exceptions = 0;

  explicit Totals(const CodedSegment& segment) {
    for (const auto& p : segment.plans) {
      lanes += p.lanes();
      steps = std::max(steps, p.k * p.c);
    }
    for (const auto& b : segment.blocks) words += static_cast<int64_t>(b.words.size());
    if (segment.split)
      for (const auto& s : *segment.split) exceptions += static_cast<int64_t>(s.exceptions.size());
  }
};

class Writer {
 public:
  explicit Writer(uint16_t* to) : to_(to) {}

  uint16_t* position() const { return to_; }

  void word(int64_t v) { *to_++ = static_cast<uint16_t>(v); }

  void u32(int64_t v) {
    word(v);
    word(v >> 16);
  }

  void words(const std::vector<uint16_t>& words) { to_ = std::copy(words.begin(), words.end(), to_); }

  void bytes(const std::vector<uint8_t>& bytes) {
    for (size_t i = 0; i < bytes.size(); i += 2) word(bytes[i] | (i + 1 < bytes.size() ? bytes[i + 1] << 8 : 0));
  }

 private:
  uint16_t* to_;
};

void write_exceptions(const CodedSegment& segment, int64_t steps, Writer* w) {
  int64_t first_lane = 0;
  for (size_t t = 0; t < segment.plans.size(); ++t) {
    const TensorPlan& p = segment.plans[t];
    const int64_t stride = p.k * p.c;
    for (const auto& [flat, value] : (*segment.split)[t].exceptions) {
      w->u32((first_lane + flat / stride) * steps + flat % stride);
      w->word(value);
      w->word(0);
    }
    first_lane += p.lanes();
  }
}

void write_states(const CodedSegment& segment, Writer* w) {
  auto block = segment.blocks.begin();
  for (const auto& p : segment.plans) {
    const int64_t lanes = p.lanes();
    for (int64_t lane = 0; lane < lanes; ++lane) {
      w->u32(block->states[lane % kLanes]);
      if (lane % kLanes == kLanes - 1 || lane + 1 == lanes) ++block;
    }
  }
}

void write_code_words(const std::vector<Block>& blocks, int threads, uint16_t* to) {
  std::vector<uint16_t*> at;
  for (const auto& b : blocks) {
    at.push_back(to);
    to += b.words.size();
  }
  parallel_for(static_cast<int64_t>(blocks.size()), threads, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      std::copy(blocks[i].words.begin(), blocks[i].words.end(), at[i]);
  });
}

}  // namespace

SideBytes side_bytes(const CodedSegment& segment) {
  SideBytes side;
  for (const auto& p : segment.plans)
    for (const auto* axis : {&p.class_a, &p.class_b, &p.class_c})
      for (int8_t v : *axis) side.classes.push_back(static_cast<uint8_t>(v));
  std::vector<uint8_t>& out = side.tables;
  for (const auto& set : segment.sets)
    if (set.contexts > 1) {
      out.insert(out.end(), set.t1.begin(), set.t1.begin() + set.classes);
      out.insert(out.end(), set.t2.begin(), set.t2.begin() + set.classes);
    }
  for (const auto& set : segment.sets) out.insert(out.end(), set.map.begin(), set.map.end());
  const TablesPlan& tables = segment.tables;
  for (int8_t first : tables.firsts) out.push_back(static_cast<uint8_t>(first));
  for (const auto& codes : tables.codes)
    out.push_back(static_cast<uint8_t>(std::min<size_t>(codes.size(), kFullCount)));
  for (const auto& codes : tables.codes) out.insert(out.end(), codes.begin(), codes.end());
  return side;
}

int64_t body_words(const CodedSegment& segment) {
  const Totals totals(segment);
  const SideBytes side = side_bytes(segment);
  const size_t side_words =
      segment.nested.empty() ? (side.classes.size() + 1) / 2 + (side.tables.size() + 1) / 2 : 2 + segment.nested.size();
  const size_t directories =
      segment.plans.size() * kDirectoryWords + segment.sets.size() + 2 * segment.blocks.size() + side_words;
  return kHeaderWords + static_cast<int64_t>(directories) + totals.exceptions * kExceptionWords + 2 * totals.lanes +
         totals.words;
}

void write_body(const CodedSegment& segment, int threads, uint16_t* to) {
  const Totals totals(segment);
  const SideBytes side = side_bytes(segment);
  Writer w(to);
  w.word(static_cast<int64_t>(segment.plans.size()));
  w.word(static_cast<int64_t>(segment.sets.size()));
  const bool trellis =
      std::any_of(segment.sets.begin(), segment.sets.end(), [](const SetPlan& set) { return set.quantisers > 1; });
  w.word((segment.split ? kFlagWide : 0) | (segment.nested.empty() ? 0 : kFlagNested) | (trellis ? kFlagTrellis : 0));
  w.word(static_cast<int64_t>(segment.tables.count()));
  for (const int64_t v :
       {totals.lanes, static_cast<int64_t>(segment.blocks.size()), totals.steps, totals.words, totals.exceptions,
        static_cast<int64_t>(side.classes.size()), static_cast<int64_t>(side.tables.size())})
    w.u32(v);
  for (const auto& p : segment.plans) {
    for (const int64_t v : {p.a, p.b, p.c, p.k}) w.u32(v);
    w.word(p.set | (p.class_a.empty() ? 0 : 0x100) | (p.class_b.empty() ? 0 : 0x200) | (p.class_c.empty() ? 0 : 0x400) |
           p.low_bits << 12);
    w.word(p.base);
  }
  for (const auto& set : segment.sets) w.word(set.contexts | (set.quantisers > 1 ? kTrellisSet : 0) | set.classes << 8);
  if (segment.nested.empty()) {
    w.bytes(side.classes);
    w.bytes(side.tables);
  } else {
    w.u32(static_cast<int64_t>(segment.nested.size()));
    w.words(segment.nested);
  }
  if (segment.split) write_exceptions(segment, totals.steps, &w);
  for (const auto& b : segment.blocks) w.u32(static_cast<int64_t>(b.words.size()));
  write_states(segment, &w);
  write_code_words(segment.blocks, threads, w.position());
}

}  // namespace toolkit::wide
