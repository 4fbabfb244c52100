// An open blob, as the C API hands it out.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_READER_H
#define TOOLKIT_WIDE_READER_H

#include "wide_format.h"

struct tk_wide_reader {
  toolkit::wide::Segment segment;
  const uint16_t* blob = nullptr;  // the caller's
  int64_t num_words = 0;
  uint64_t serial = 0;  // of all readers of the process; an address may come back, this does not
};

#endif  // TOOLKIT_WIDE_READER_H
