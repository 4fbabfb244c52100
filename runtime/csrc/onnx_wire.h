// Protobuf's wire format: reading fields without copying them, and writing some (protobuf.dev, "Encoding").
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ONNX_WIRE_H
#define TOOLKIT_ONNX_WIRE_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace toolkit::onnx {

// Thrown for bytes that are not sound, and for what a sound model may hold but is not known here.
struct Unknown {};

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint32_t number = 0;
  uint32_t type = kVarint;
  uint64_t value = 0;      // of type kVarint
  std::string_view bytes;  // of type kBytes
  std::string_view whole;  // with its tag

  int64_t integer() const {
    if (type != kVarint) throw Unknown();
    return static_cast<int64_t>(value);
  }
  std::string_view text() const {
    if (type != kBytes) throw Unknown();
    return bytes;
  }
};

// Reads the fields of a message in their order. Throws Unknown where the bytes are no message.
class Fields {
 public:
  explicit Fields(std::string_view message) : at_(message.data()), end_(message.data() + message.size()) {}

  // False at the end of the message.
  bool next(Field* field) {
    if (at_ == end_) return false;
    const char* const begin = at_;
    const uint64_t tag = varint();
    field->number = static_cast<uint32_t>(tag >> 3);
    field->type = static_cast<uint32_t>(tag & 7);
    if (tag >> 32 || field->number == 0) throw Unknown();
    switch (field->type) {
      case kVarint:
        field->value = varint();
        break;
      case kBytes:
        field->bytes = take(varint());
        break;
      case kFixed64:
        take(8);
        break;
      case kFixed32:
        take(4);
        break;
      default:
        throw Unknown();
    }
    field->whole = {begin, static_cast<size_t>(at_ - begin)};
    return true;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == end_) throw Unknown();
      const auto byte = static_cast<uint8_t>(*at_++);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw Unknown();
  }

  bool at_end() const { return at_ == end_; }

 private:
  std::string_view take(uint64_t size) {
    if (size > static_cast<uint64_t>(end_ - at_)) throw Unknown();
    const std::string_view taken(at_, static_cast<size_t>(size));
    at_ += size;
    return taken;
  }

  const char* at_;
  const char* end_;
};

// Appends the integers of a repeated field, packed or not.
inline void append_integers(const Field& field, std::vector<int64_t>* integers) {
  if (field.type != kBytes) {
    integers->push_back(field.integer());
    return;
  }
  for (Fields packed(field.bytes); !packed.at_end();) integers->push_back(static_cast<int64_t>(packed.varint()));
}

inline void put_varint(uint64_t value, std::string* to) {
  for (; value >= 0x80; value >>= 7) to->push_back(static_cast<char>(value | 0x80));
  to->push_back(static_cast<char>(value));
}

inline void put_integer(uint32_t number, uint64_t value, std::string* to) {
  put_varint(number << 3 | kVarint, to);
  put_varint(value, to);
}

// The bytes of a field of type kBytes before its content.
inline void put_length(uint32_t number, uint64_t length, std::string* to) {
  put_varint(number << 3 | kBytes, to);
  put_varint(length, to);
}

inline void put_bytes(uint32_t number, std::string_view content, std::string* to) {
  put_length(number, content.size(), to);
  to->append(content);
}

}  // namespace toolkit::onnx

#endif  // TOOLKIT_ONNX_WIRE_H
