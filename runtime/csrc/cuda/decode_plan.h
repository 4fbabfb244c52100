// From a checked segment to what a launch works on: jobs, records, tables, classes and exceptions in one image of
// bytes. SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_DECODE_PLAN_H
#define TOOLKIT_CUDA_DECODE_PLAN_H

#include <cstdint>
#include <vector>

#include "cuda_api.h"
#include "decode_launch.h"
#include "launch_geometry.h"
#include "wide_format.h"

namespace toolkit::cuda {

// Where the parts of the image begin; all multiples of 16.
struct ImageParts {
  size_t blocks = 0, tensors = 0, classes = 0, tables = 0, patches = 0;
};

// One launch: tensors of one segment that go the same way. The image is copied to the device as it is.
struct DecodePlan {
  bool wide = false;  // symbols are int16
  TableNeeds needs;
  Geometry geometry;
  std::vector<uint8_t> image;
  ImageParts parts;
  // What a launch needs beside addresses, the status word and the epilogue.
  DecodeLaunch launch{};
};

// How the output lies: each tensor by itself, or the matrix of all symbols of the segment.
enum class Form { kTensor, kMatrix };

// Plans the decoding of `tensors` of the segment, which are one of its launch_groups or some of one; `blob` is the
// whole blob that the segment was read from. In Form::kTensor there is one tensor, whose first num_values values are
// written. `layout` < 0 leaves the choice to choose_geometry.
DecodePlan make_plan(const wide::Segment& segment, const uint16_t* blob, const std::vector<int64_t>& tensors, Form form,
                     const DeviceLimits& limits, int layout);

// Splits all tensors of a segment into groups that one launch can do: those of one table set that have classes of
// columns or not, and the same number of raw low bits.
std::vector<std::vector<int64_t>> launch_groups(const wide::Segment& segment);

tk_plan_info describe(const DecodePlan& plan);

Divider divider_of(int64_t divisor);

// Completes an epilogue: whether 16-byte stores are possible, and how scales lie beside a vector of values.
// `out_alignment`: of the output's address.
void settle_epilogue(const DecodePlan& plan, uint64_t out_alignment, Epilogue* epilogue);

// The launch with the image and the blob at given addresses, on the host or on a device.
DecodeLaunch launch_at(const DecodePlan& plan, const uint8_t* image, const uint16_t* blob, int64_t blob_words);

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_DECODE_PLAN_H
