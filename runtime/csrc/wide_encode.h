// The wide encoder.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_ENCODE_H
#define TOOLKIT_WIDE_ENCODE_H

#include "wide_format.h"

namespace toolkit::wide {

// The body of a segment (FORMAT.md 2.2). Tensors are not empty; int16 symbols where options.wide is set.
std::vector<uint16_t> encode_segment(const tk_tensor* tensors, int64_t count, const tk_wide_options& options);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_ENCODE_H
