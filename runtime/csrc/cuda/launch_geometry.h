// How many warps, blocks and bytes of shared memory a launch takes, and how its tables lie: host code, no device
// needed. SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_LAUNCH_GEOMETRY_H
#define TOOLKIT_CUDA_LAUNCH_GEOMETRY_H

#include <cstdint>

#include "decode_launch.h"

namespace toolkit::cuda {

// What a device offers a launch.
struct DeviceLimits {
  int32_t multiprocessors = 132;
  int32_t shared_bytes = 232448;  // that one thread block may ask for
  int32_t block_threads = 1024;   // and its threads
};

// The tables that a launch uses.
struct TableNeeds {
  int32_t tables = 0;
  int32_t entries = 0;       // of the largest: symbols that have a frequency
  int32_t span = 0;          // numbers from the lowest to the highest symbol of all, 0 among them
  int32_t record_bytes = 0;  // of all records
};

struct Geometry {
  Layout layout = Layout::kPaired;
  int32_t grid = 0;          // thread blocks, at most one for each multiprocessor
  int32_t warps = 0;         // of a thread block; where they are few, some only help to copy the tables
  int32_t shared_bytes = 0;  // of a thread block
};

// Warps of a thread block, as many as there can be, to hide a step's latency: 64 registers a thread.
inline constexpr int kMostWarps = 32;
// So many warps at least copy the tables, of up to 200 KiB, into shared memory.
inline constexpr int kCopyingWarps = 8;

// Bytes of one table; where its entries begin in it.
int32_t table_stride(Layout layout, const TableNeeds& needs);
int32_t entries_begin(Layout layout);

// Shared memory of a thread block.
int64_t shared_bytes_of(Layout layout, const TableNeeds& needs, int32_t warps);

// A persistent grid: every warp takes blocks of the tensor in turn. Grid 0 where not even one warp fits.
Geometry choose_geometry(const DeviceLimits& limits, const TableNeeds& needs, int64_t num_blocks);
// The same with the layout given.
Geometry geometry_of(const DeviceLimits& limits, const TableNeeds& needs, int64_t num_blocks, Layout layout);

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_LAUNCH_GEOMETRY_H
