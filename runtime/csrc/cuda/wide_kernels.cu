// Kernels of the wide decoder: a persistent grid of warps, each of which decodes blocks in turn.
// SPDX-License-Identifier: Apache-2.0
#include "warp_block.h"
#include "wide_kernels.h"

namespace toolkit::cuda {
namespace {

constexpr int kThreads = kMostWarps * kWarpLanes;

template <class Symbol, Layout kLayout, bool kTrellis>
__global__ void __launch_bounds__(kThreads, 1) decode_wide(const __grid_constant__ DecodeLaunch launch) {
  extern __shared__ uint4 shared[];
  constexpr bool kInShared = kLayout != Layout::kGlobalBuckets;
  const uint32_t copied = launch.record_bytes + (kInShared ? launch.table_bytes : 0);
  const auto* const from = reinterpret_cast<const uint4*>(launch.tables);
  for (uint32_t i = threadIdx.x; i < copied / sizeof(uint4); i += blockDim.x) shared[i] = from[i];
  __syncthreads();

  auto* const memory = reinterpret_cast<uint8_t*>(shared);
  const uint32_t warp_number = threadIdx.x / kWarpLanes, warps = blockDim.x / kWarpLanes;
  uint8_t* const own = memory + copied + warp_number * kWarpBytes;
  WarpMemory places;
  places.records = memory;
  if constexpr (kInShared)
    places.tables = memory + launch.record_bytes;
  else
    places.tables = launch.tables + launch.record_bytes;
  places.ring = reinterpret_cast<uint16_t*>(own);
  places.tile = reinterpret_cast<uint32_t*>(own + kRingWords * sizeof(uint16_t));
  const DeviceWarp warp{static_cast<int>(threadIdx.x % kWarpLanes)};
  for (uint32_t b = warp_number * gridDim.x + blockIdx.x; b < launch.num_blocks; b += gridDim.x * warps) {
    const LaunchPart& part = part_of(launch, b);
    decode_block<Symbol, kLayout, kTrellis>(warp, launch, part, launch.blocks[b + part.blocks_at], places);
  }
}

__global__ void patch_wide(const __grid_constant__ LaunchPart part, const TensorJob* tensors, const Patch* patches) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < part.num_patches && !put_patch(part, tensors[part.tensor], patches[part.patches_at + i]))
    DeviceWarp{0}.report(part.status, kStreamError);
}

using Kernel = void (*)(DecodeLaunch);

template <class Symbol, bool kTrellis>
Kernel kernel_of(Layout layout) {
  switch (layout) {
    case Layout::kDirect:
      return decode_wide<Symbol, Layout::kDirect, kTrellis>;
    case Layout::kPaired:
      return decode_wide<Symbol, Layout::kPaired, kTrellis>;
    case Layout::kBuckets:
      return decode_wide<Symbol, Layout::kBuckets, kTrellis>;
    default:
      return decode_wide<Symbol, Layout::kGlobalBuckets, kTrellis>;
  }
}

Kernel kernel_of(const DecodePlan& plan) {
  if (plan.wide)
    return plan.launch.trellis ? kernel_of<int16_t, true>(plan.layout) : kernel_of<int16_t, false>(plan.layout);
  return plan.launch.trellis ? kernel_of<int8_t, true>(plan.layout) : kernel_of<int8_t, false>(plan.layout);
}

}  // namespace

cudaError_t prepare_decode(const DecodePlan& plan, const DeviceLimits& limits) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel_of(plan)),
                              cudaFuncAttributeMaxDynamicSharedMemorySize, limits.shared_bytes);
}

cudaError_t launch_decode(const DecodePlan& plan, const DeviceLimits& limits, const DecodeLaunch& launch,
                          cudaStream_t stream) {
  if (launch.num_blocks == 0) return cudaSuccess;
  const Geometry g = geometry_of(plan, limits, launch.num_blocks);
  kernel_of(plan)<<<static_cast<unsigned>(g.grid), static_cast<unsigned>(g.warps * kWarpLanes),
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
