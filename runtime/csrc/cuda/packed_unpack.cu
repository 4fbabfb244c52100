// Packed weights as numbers again, on a device: a warp takes chunks of tiles in turn.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "device_memory.h"
#include "packed_unpack.h"

namespace toolkit::cuda {
namespace {

constexpr int kThreads = kPackedWarps * kWarpLanes;
constexpr int64_t kMostBlocks = 1 << 16;

template <int kBits, class Value>
__global__ void __launch_bounds__(kThreads) unpack_packed(const __grid_constant__ UnpackJob<Value> job) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int chunks = (job.inputs + chunk_inputs(kBits) - 1) / chunk_inputs(kBits);
  const int64_t count = static_cast<int64_t>((job.outputs + kTileOutputs - 1) / kTileOutputs) * chunks;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kPackedWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kPackedWarps + threadIdx.x / kWarpLanes; i < count; i += stride)
    unpack_lane<kBits>(job, static_cast<int>(i / chunks), static_cast<int>(i % chunks), lane);
}

template <class Value>
using Kernel = void (*)(UnpackJob<Value>);

template <class Value>
constexpr Kernel<Value> kKernels[kMostBits] = {
    unpack_packed<1, Value>, unpack_packed<2, Value>, unpack_packed<3, Value>, unpack_packed<4, Value>,
    unpack_packed<5, Value>, unpack_packed<6, Value>, unpack_packed<7, Value>, unpack_packed<8, Value>};

template <class Value>
tk_status launch(const tk_unpacking& u, cudaStream_t stream) {
  const int64_t chunks = static_cast<int64_t>(packed_tiles(u.outputs)) * packed_chunks(u.inputs, u.bits);
  const auto blocks = static_cast<unsigned>(std::min((chunks + kPackedWarps - 1) / kPackedWarps, kMostBlocks));
  kKernels<Value>[u.bits - 1]<<<blocks, kThreads, 0, stream>>>(unpack_job<Value>(u));
  return remember(cudaGetLastError(), "starting the kernel");
}

}  // namespace
}  // namespace toolkit::cuda

int32_t tk_cuda_unpack_weight(const tk_unpacking* u, void* stream) {
  if (const int32_t status = tk_unpacking_check(u)) return status;
  if (reinterpret_cast<uintptr_t>(u->packed) % 16 != 0) return TK_ERR_ARGUMENT;
  auto* const on = static_cast<cudaStream_t>(stream);
  return u->type == 1 ? toolkit::cuda::launch<float>(*u, on) : toolkit::cuda::launch<uint16_t>(*u, on);
}
