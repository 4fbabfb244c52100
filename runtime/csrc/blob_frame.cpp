// The frame around every blob, and the texts of the status codes.
// SPDX-License-Identifier: Apache-2.0
#include "blob_frame.h"

#include "crc32.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "blobs are read as little-endian words in place"
#endif

namespace toolkit {
namespace {

uint32_t read_u32(const uint16_t* words) { return words[0] | (static_cast<uint32_t>(words[1]) << 16); }

void write_u32(uint16_t* words, uint32_t value) {
  words[0] = static_cast<uint16_t>(value & 0xFFFF);
  words[1] = static_cast<uint16_t>(value >> 16);
}

// The checksum covers everything from word 4 on.
uint32_t frame_checksum(const uint16_t* words, int64_t num_words) { return crc32(words + 4, (num_words - 4) * 2); }

}  // namespace

tk_status check_frame(const uint16_t* words, int64_t num_words, int coder, const uint16_t** body, int64_t* body_words) {
  if (words == nullptr || body == nullptr || body_words == nullptr || num_words < 0) return TK_ERR_ARGUMENT;
  if (num_words < kFrameWords) return TK_ERR_TRUNCATED;
  if (words[0] != kBlobMagic) return TK_ERR_MAGIC;
  if ((words[1] & 0xFF) != kFormatVersion) return TK_ERR_VERSION;
  const int found = frame_coder(words);
  if (found < kCoderWide || found > kCoderFixed || (coder != 0 && found != coder)) return TK_ERR_CODER;
  if (static_cast<int64_t>(read_u32(words + 4)) != num_words) return TK_ERR_TRUNCATED;
  if (read_u32(words + 2) != frame_checksum(words, num_words)) return TK_ERR_CHECKSUM;
  *body = words + kFrameWords;
  *body_words = num_words - kFrameWords;
  return TK_OK;
}

void write_frame(uint16_t* words, int64_t num_words, int coder) {
  words[0] = kBlobMagic;
  words[1] = static_cast<uint16_t>(kFormatVersion | (coder << 8));
  write_u32(words + 4, static_cast<uint32_t>(num_words));
  write_u32(words + 2, frame_checksum(words, num_words));
}

}  // namespace toolkit

extern "C" {

uint32_t tk_crc32(const void* data, int64_t num_bytes) { return toolkit::crc32(data, data == nullptr ? 0 : num_bytes); }

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
    case TK_ERR_NO_DEVICE:
      return "there is no CUDA device that this library can use";
    case TK_ERR_DEVICE_MEMORY:
      return "the CUDA device has not enough memory";
    case TK_ERR_DEVICE:
      return "a CUDA call failed";
    default:
      return "unknown status code";
  }
}

}  // extern "C"
