// The wide encoder.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_ENCODE_H
#define TOOLKIT_WIDE_ENCODE_H

#include <functional>

#include "wide_format.h"

namespace toolkit::wide {

// Writes the body of a segment (FORMAT.md 2.2) into what `allocate` returns for its number of words. Tensors are not
// empty; int16 symbols where options.wide is set. Throws std::range_error where a trellis symbol stands for an integer
// outside of the symbols' type.
void encode_segment(const tk_tensor* tensors, int64_t count, const tk_wide_options& options,
                    const std::function<uint16_t*(int64_t)>& allocate);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_ENCODE_H
