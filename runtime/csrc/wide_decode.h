// Decoding of tensors from a checked segment.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_DECODE_H
#define TOOLKIT_WIDE_DECODE_H

#include "wide_format.h"

namespace toolkit::wide {

// The best instruction set of this processor.
tk_isa best_isa();

// Decodes blocks first_block .. end_block - 1 of the tensor. Lane i, counted from the first of these blocks, goes to
// out + i * lane_stride symbols.
tk_status decode_lanes(const Segment& segment, const Tensor& tensor, void* out, int64_t lane_stride,
                       int64_t first_block, int64_t end_block, int threads, tk_isa isa);

// Puts the exceptions of the tensor's lanes first_lane .. end_lane - 1 in place, lanes lying lane_stride symbols apart
// and the first of them at `out`.
void apply_exceptions(const Segment& segment, const Tensor& tensor, void* out, int64_t lane_stride, int64_t first_lane,
                      int64_t end_lane);

// Decodes the matrix [num_lanes, num_steps]; positions past a lane's end are zero.
tk_status decode_all(const Segment& segment, void* out, int threads, tk_isa isa);

// Decodes all tensors, one behind the other, each as decode_tensor does.
tk_status decode_tensors(const Segment& segment, void* out, int threads, tk_isa isa);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_DECODE_H
