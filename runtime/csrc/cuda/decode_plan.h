// From a checked segment to what launches work on: jobs, records, tables, classes and exceptions in one image of
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
  size_t blocks = 0, tensors = 0, classes = 0, tables = 0, patches = 0, end = 0;
};

// A tensor of a plan, and what of the plan is its own.
struct PlannedTensor {
  int64_t number;  // in the segment
  TensorJob job;
  uint32_t first_block, num_blocks, first_patch, num_patches;
};

// Tensors of one segment that go the same way, any of which one launch can decode: they share their tables. The image
// is copied to the device as it is.
struct DecodePlan {
  bool wide = false;  // symbols are int16
  TableNeeds needs;
  Layout layout = Layout::kPaired;
  bool fits = false;  // whether a thread block of one warp has room for the tables in this layout
  std::vector<uint8_t> image;
  ImageParts parts;
  std::vector<PlannedTensor> tensors;
  // What a launch needs beside addresses and its parts.
  DecodeLaunch launch{};
};

// Plans the decoding of `tensors` of the segment, which are one of its launch_groups or some of one; `blob` is the
// whole blob that the segment was read from. `layout` < 0 leaves the choice to choose_geometry.
DecodePlan make_plan(const wide::Segment& segment, const uint16_t* blob, const std::vector<int64_t>& tensors,
                     const DeviceLimits& limits, int layout);

// Splits all tensors of a segment into groups that one launch can do: those of one table set that have classes of
// columns or not, and the same number of raw low bits.
std::vector<std::vector<int64_t>> launch_groups(const wide::Segment& segment);

// A launch without parts, with the image and the blob at given addresses, on the host or on a device.
DecodeLaunch launch_at(const DecodePlan& plan, const uint8_t* image, const uint16_t* blob, int64_t blob_words);

// What a part of a launch decodes: a tensor by its place in the plan, and where its values go.
struct PartRequest {
  size_t place;
  Epilogue epilogue;     // of make_epilogue
  void* out;             // also on a device: only the address counts
  int64_t out_stride;    // from lane to lane, in values
  uint32_t most_values;  // that are written
  uint32_t* status;
};

// Adds a part; false where the launch has no room for more.
bool add_part(const DecodePlan& plan, const PartRequest& request, DecodeLaunch* launch);

// The geometry of a launch that decodes so many blocks.
Geometry geometry_of(const DecodePlan& plan, const DeviceLimits& limits, int64_t num_blocks);

// Of a launch that decodes one tensor of the plan, or all of them where place is negative.
tk_plan_info describe(const DecodePlan& plan, const DeviceLimits& limits, int64_t place);

Divider divider_of(int64_t divisor);

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_DECODE_PLAN_H
