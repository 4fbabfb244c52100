// CRC-32 of FORMAT.md 1.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CRC32_H
#define TOOLKIT_CRC32_H

#include <cstdint>

namespace toolkit {

uint32_t crc32(const void* data, int64_t num_bytes);

}  // namespace toolkit

#endif  // TOOLKIT_CRC32_H
