// Kernels of the wide decoder: a persistent grid of warps, each of which decodes blocks in turn.
// SPDX-License-Identifier: Apache-2.0
#include "kernel_choice.h"
#include "warp_block.h"
#include "wide_kernels.h"

namespace toolkit::cuda {
namespace {

constexpr int kThreads = kMostWarps * kWarpLanes;

// Puts tables into shared memory, several loads of a thread under way at a time.
__device__ __forceinline__ void copy_to_shared(uint4* to, const uint4* from, uint32_t count) {
  constexpr uint32_t kAhead = 8;
  for (uint32_t first = threadIdx.x; first < count; first += kAhead * blockDim.x) {
    uint4 loaded[kAhead];
#pragma unroll
    for (uint32_t n = 0; n < kAhead; ++n) {
      const uint32_t i = first + n * blockDim.x;
      if (i < count) loaded[n] = __ldg(from + i);
    }
#pragma unroll
    for (uint32_t n = 0; n < kAhead; ++n) {
      const uint32_t i = first + n * blockDim.x;
      if (i < count) to[i] = loaded[n];
    }
  }
}

template <class Symbol, Layout kLayout, SetKind kSet>
__global__ void __launch_bounds__(kThreads, 1) decode_wide(const __grid_constant__ DecodeLaunch launch) {
  extern __shared__ uint4 shared[];
  constexpr bool kInShared = kLayout != Layout::kGlobalBuckets;
  const uint32_t copied = launch.record_bytes + (kInShared ? launch.table_bytes : 0);
  copy_to_shared(shared, reinterpret_cast<const uint4*>(launch.tables), copied / sizeof(uint4));
  __syncthreads();

  const DeviceWarp warp{static_cast<int>(threadIdx.x % kWarpLanes)};
  const uint32_t warp_number = warp.uniform(threadIdx.x / kWarpLanes), warps = blockDim.x / kWarpLanes;
  WarpMemory memory;
  memory.shared = reinterpret_cast<uint8_t*>(shared);
  memory.tile = copied + warp_number * kWarpBytes;
  memory.ring = memory.tile + kTileBytes;
  memory.tables = kInShared ? memory.shared : launch.tables;
  for (uint32_t b = warp_number * gridDim.x + blockIdx.x; b < launch.num_blocks; b += gridDim.x * warps) {
    const LaunchPart& part = part_of(launch, b);
    decode_block<Symbol, kLayout, kSet>(warp, launch, part, launch.blocks[b + part.blocks_at], memory);
  }
}

__global__ void patch_wide(const __grid_constant__ LaunchPart part, const TensorJob* tensors, const Patch* patches) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < part.num_patches && !put_patch(part, tensors[part.tensor], patches[part.patches_at + i]))
    DeviceWarp{0}.report(part.status, kStreamError);
}

struct DeviceKernels {
  using Function = void (*)(DecodeLaunch);
  template <class Symbol, Layout kLayout, SetKind kSet>
  static constexpr Function kOf = decode_wide<Symbol, kLayout, kSet>;
};

}  // namespace

cudaError_t prepare_decode(const DecodePlan& plan, const DeviceLimits& limits) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel_of<DeviceKernels>(plan)),
                              cudaFuncAttributeMaxDynamicSharedMemorySize, limits.shared_bytes);
}

cudaError_t launch_decode(const DecodePlan& plan, const DeviceLimits& limits, const DecodeLaunch& launch,
                          cudaStream_t stream) {
  if (launch.num_blocks == 0) return cudaSuccess;
  const Geometry g = geometry_of(plan, limits, launch.num_blocks);
  kernel_of<DeviceKernels>(plan)<<<static_cast<unsigned>(g.grid), static_cast<unsigned>(g.warps * kWarpLanes),
                                   static_cast<size_t>(g.shared_bytes), stream>>>(launch);
  if (cudaError_t error = cudaGetLastError()) return error;
  constexpr uint32_t kPatchThreads = 256;
  for (uint32_t i = 0; i < launch.num_parts; ++i) {
    const LaunchPart& part = launch.parts[i];
    if (part.num_patches == 0) continue;
    patch_wide<<<(part.num_patches + kPatchThreads - 1) / kPatchThreads, kPatchThreads, 0, stream>>>(
        part, launch.tensors, launch.patches);
    if (cudaError_t error = cudaGetLastError()) return error;
  }
  return cudaSuccess;
}

}  // namespace toolkit::cuda
