// The frame around every blob, its CRC-32 (slicing by 16), and the texts of the status codes.
// SPDX-License-Identifier: Apache-2.0
#include "blob_frame.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "threads.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "blobs are read as little-endian words in place"
#endif

namespace toolkit {
namespace {

constexpr uint32_t kPolynomial = 0xEDB88320u;  // bit 31 is x^0

using CrcTables = std::array<std::array<uint32_t, 256>, 16>;

// tables[k][b] is the CRC register after byte b and k zero bytes.
constexpr CrcTables make_crc_tables() {
  CrcTables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? kPolynomial : 0u);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 16; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr CrcTables kCrc = make_crc_tables();

// The CRC of four bytes followed by 4 * behind bytes of the same group of sixteen.
inline uint32_t fold(uint32_t word, size_t behind) {
  const size_t k = 4 * behind;
  return kCrc[k + 3][word & 0xFF] ^ kCrc[k + 2][(word >> 8) & 0xFF] ^ kCrc[k + 1][(word >> 16) & 0xFF] ^
         kCrc[k][word >> 24];
}

uint32_t crc32(const uint8_t* data, int64_t num_bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (; num_bytes >= 16; num_bytes -= 16, data += 16) {
    uint32_t part[4];
    std::memcpy(part, data, sizeof(part));
    crc = fold(part[0] ^ crc, 3) ^ fold(part[1], 2) ^ fold(part[2], 1) ^ fold(part[3], 0);
  }
  for (; num_bytes > 0; --num_bytes, ++data) crc = (crc >> 8) ^ kCrc[0][(crc ^ *data) & 0xFF];
  return ~crc;
}

// a * b modulo the polynomial.
uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b >> 1) ^ ((b & 1u) ? kPolynomial : 0u);
  }
  return product;
}

// x^(8 * num_bytes): its product with the CRC of some bytes is the part that they have in the CRC of themselves and
// num_bytes more; the other part is the CRC of those (as in zlib's crc32_combine).
uint32_t shift_by(int64_t num_bytes) {
  uint32_t shift = 1u << 31, square = 1u << 23;
  for (; num_bytes; num_bytes >>= 1, square = multiply(square, square))
    if (num_bytes & 1) shift = multiply(shift, square);
  return shift;
}

uint32_t crc32_of_pieces(const uint8_t* data, int64_t num_bytes, int threads) {
  constexpr int64_t kPiece = int64_t{1} << 18;
  if (num_bytes <= kPiece) return crc32(data, num_bytes);
  std::vector<uint32_t> pieces(static_cast<size_t>((num_bytes + kPiece - 1) / kPiece));
  const auto size_of = [&](size_t i) { return std::min(kPiece, num_bytes - static_cast<int64_t>(i) * kPiece); };
  parallel_for(static_cast<int64_t>(pieces.size()), threads, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      pieces[i] = crc32(data + static_cast<int64_t>(i) * kPiece, size_of(i));
  });
  const uint32_t shift = shift_by(kPiece);
  uint32_t crc = 0;  // of no bytes
  for (size_t i = 0; i < pieces.size(); ++i)
    crc = multiply(crc, i + 1 < pieces.size() ? shift : shift_by(size_of(i))) ^ pieces[i];
  return crc;
}

uint32_t read_u32(const uint16_t* words) { return words[0] | (static_cast<uint32_t>(words[1]) << 16); }

void write_u32(uint16_t* words, uint32_t value) {
  words[0] = static_cast<uint16_t>(value & 0xFFFF);
  words[1] = static_cast<uint16_t>(value >> 16);
}

// The checksum covers everything from word 4 on.
uint32_t frame_checksum(const uint16_t* words, int64_t num_words, int threads) {
  return crc32_of_pieces(reinterpret_cast<const uint8_t*>(words + 4), (num_words - 4) * 2, threads);
}

}  // namespace

tk_status check_frame(const uint16_t* words, int64_t num_words, int coder, const uint16_t** body, int64_t* body_words) {
  if (words == nullptr || body == nullptr || body_words == nullptr || num_words < 0) return TK_ERR_ARGUMENT;
  if (num_words < kFrameWords) return TK_ERR_TRUNCATED;
  if (words[0] != kBlobMagic) return TK_ERR_MAGIC;
  if ((words[1] & 0xFF) != kFormatVersion) return TK_ERR_VERSION;
  const int found = frame_coder(words);
  if (found < kCoderWide || found > kCoderFixed || (coder != 0 && found != coder)) return TK_ERR_CODER;
  if (static_cast<int64_t>(read_u32(words + 4)) != num_words) return TK_ERR_TRUNCATED;
  if (read_u32(words + 2) != frame_checksum(words, num_words, 1)) return TK_ERR_CHECKSUM;
  *body = words + kFrameWords;
  *body_words = num_words - kFrameWords;
  return TK_OK;
}

void write_frame(uint16_t* words, int64_t num_words, int coder, int threads) {
  words[0] = kBlobMagic;
  words[1] = static_cast<uint16_t>(kFormatVersion | (coder << 8));
  write_u32(words + 4, static_cast<uint32_t>(num_words));
  write_u32(words + 2, frame_checksum(words, num_words, threads));
}

}  // namespace toolkit

extern "C" {

uint32_t tk_crc32(const void* data, int64_t num_bytes) {
  return toolkit::crc32(static_cast<const uint8_t*>(data), data == nullptr ? 0 : num_bytes);
}

const char* tk_status_text(int32_t status) {
  switch (status) {
    case TK_OK:
      return "no error";
    case TK_ERR_ARGUMENT:
      return "the arguments contradict each other";
    case TK_ERR_MEMORY:
      return "out of memory";
    case TK_ERR_TRUNCATED:
      return "the blob is shorter or longer than its header announces";
    case TK_ERR_MAGIC:
      return "not a blob of compressed weights";
    case TK_ERR_VERSION:
      return "the blob has a format version that this library does not know";
    case TK_ERR_CODER:
      return "the blob is of another coder than the one expected";
    case TK_ERR_CHECKSUM:
      return "the checksum differs: the blob is damaged";
    case TK_ERR_HEADER:
      return "a header field of the blob is out of its range";
    case TK_ERR_TABLE:
      return "the code tables of the blob are inconsistent";
    case TK_ERR_STREAM:
      return "the code words do not decode to the announced symbols";
    case TK_ERR_EXCEPTION:
      return "an exception of the blob is out of range or out of order";
    default:
      return "unknown status code";
  }
}

}  // extern "C"
