// The frame around every blob (FORMAT.md 1): magic, version, coder, CRC-32 and length.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_BLOB_FRAME_H
#define TOOLKIT_BLOB_FRAME_H

#include <cstdint>

#include "codec_api.h"

namespace toolkit {

constexpr uint16_t kBlobMagic = 0x574E;
constexpr int kFormatVersion = 1;
constexpr int64_t kFrameWords = 6;

// Coder numbers of FORMAT.md 1.
enum Coder : int { kCoderWide = 1, kCoderAdaptive = 2, kCoderHuffman = 3, kCoderFixed = 4 };

// Checks the frame in the order length of the frame, magic, version, coder, length, checksum. On success *body points
// to the *body_words words behind the frame. `coder` 0 accepts every coder that this version knows.
tk_status check_frame(const uint16_t* words, int64_t num_words, int coder, const uint16_t** body, int64_t* body_words);

// The coder of a blob whose frame was checked.
inline int frame_coder(const uint16_t* words) { return words[1] >> 8; }

// Fills in the first six of num_words words; the body must be in place, for the checksum covers it.
void write_frame(uint16_t* words, int64_t num_words, int coder);

}  // namespace toolkit

#endif  // TOOLKIT_BLOB_FRAME_H
