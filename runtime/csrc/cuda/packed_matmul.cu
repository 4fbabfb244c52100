// Products of few rows with packed weights: each weight is read once from memory, packed, and multiplied by the tensor
// cores. Sums over the inputs are divided among the warps of a thread block and put together in a fixed order.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda_api.h"
#include "device_memory.h"
#include "packed_layout.h"

namespace toolkit::cuda {
namespace {

constexpr int kBlocksOfMultiprocessor = 3;
// Chunks that a warp loads before it uses the first: about 16 words of each lane, fewer where a chunk takes much code.
TK_HOST_DEVICE constexpr int chunks_ahead(int bits) { return bits == 1 ? 2 : lane_words(bits) > 4 ? 3 : 4; }

// d += a * b on float16 with float32 sums: a 16 x 16 (the outputs), b 16 x 8 (the batch).
__device__ __forceinline__ void multiply_add(float* d, const uint32_t* a, const uint32_t* b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

__device__ __forceinline__ uint32_t subtract_halves(uint32_t a, uint32_t b) {
  uint32_t difference;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
  return difference;
}

__device__ __forceinline__ uint32_t twice(uint16_t bits) { return bits | static_cast<uint32_t>(bits) << 16; }

template <int kBits, bool kCodebook>
__global__ void __launch_bounds__(kPackedWarps* kWarpLanes, kBlocksOfMultiprocessor)
    multiply_packed(const __grid_constant__ PackedJob job) {
  constexpr int kSpans = products_of(kBits) / 2, kInputs = chunk_inputs(kBits), kAhead = chunks_ahead(kBits);
  __shared__ float sums[kPackedWarps][kTileOutputs * kTileBatch];
  __shared__ uint16_t book[kCodebook ? 1 << kBits : 1];
  if constexpr (kCodebook) {
    for (int i = static_cast<int>(threadIdx.x); i < 1 << kBits; i += kPackedWarps * kWarpLanes)
      book[i] = job.codebook[i];
    __syncthreads();
  }
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int g = lane / 4, c = lane % 4;
  const int tile = static_cast<int>(blockIdx.x), first_row = static_cast<int>(blockIdx.y) * kTileBatch;
  const int chunks = (job.inputs + kInputs - 1) / kInputs;
  const uint32_t* const weights = job.packed + static_cast<int64_t>(tile) * chunks * chunk_words(kBits);
  const bool has_row = first_row + g < job.batch;
  const uint16_t* const x = job.x + static_cast<int64_t>(has_row ? first_row + g : 0) * job.inputs;
  const int x_inputs = has_row ? job.inputs : 0;
  const bool aligned = has_aligned_rows(job), fine = has_fine_groups<kBits>(job);
  // Outputs behind the last are those of padding; their scales are read from the last.
  const int output0 = min(tile * kTileOutputs + g, job.outputs - 1);
  const int output1 = min(tile * kTileOutputs + g + 8, job.outputs - 1);
  float total[4] = {0, 0, 0, 0};

  for (int first = warp; first < chunks; first += kPackedWarps * kAhead) {
    LaneFields<kBits> loaded[kAhead];
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const int chunk = first + n * kPackedWarps;
      if (chunk < chunks)
        loaded[n] = load_fields<kBits>(weights + static_cast<int64_t>(chunk) * chunk_words(kBits), lane);
    }
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const int chunk = first + n * kPackedWarps;
      if (chunk >= chunks) break;
      uint32_t zero0 = 0, zero1 = 0;
      float scale0 = 0, scale1 = 0, d[4] = {0, 0, 0, 0};
#pragma unroll
      for (int span = 0; span < kSpans; ++span) {
        const int input = chunk * kInputs + kSpanInputs * span;
        if (span == 0 || fine) {
          const int64_t group = group_of(job, input);
          scale0 = from_float16(job.scales[group + output0]);
          scale1 = from_float16(job.scales[group + output1]);
          if constexpr (!kCodebook) {
            const float units0 = job.zeros ? from_float16(job.zeros[group + output0]) : static_cast<float>(job.zero);
            const float units1 = job.zeros ? from_float16(job.zeros[group + output1]) : static_cast<float>(job.zero);
            zero0 = twice(float16_bits(1024 + units0));
            zero1 = twice(float16_bits(1024 + units1));
          }
        }
        const Bytes16 b = load_eight(x, input + lane_input(lane), x_inputs, aligned);
#pragma unroll
        for (int s = 0; s < 2; ++s) {
          uint32_t a[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const uint32_t pair = field_pair<kBits>(loaded[n], 2 * span + s, i);
            if constexpr (kCodebook)
              a[i] = book[pair & 0xff] | static_cast<uint32_t>(book[pair >> 16]) << 16;
            else
              a[i] = subtract_halves(biased_halves(pair), i % 2 ? zero1 : zero0);
          }
          multiply_add(d, a, b.word + 2 * s);
        }
        if (span == kSpans - 1 || fine) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            total[i] += (i < 2 ? scale0 : scale1) * d[i];
            d[i] = 0;
          }
        }
      }
    }
  }

  float* const own = sums[warp];
  own[g * kTileBatch + 2 * c] = total[0];
  own[g * kTileBatch + 2 * c + 1] = total[1];
  own[(g + 8) * kTileBatch + 2 * c] = total[2];
  own[(g + 8) * kTileBatch + 2 * c + 1] = total[3];
  __syncthreads();
  const int at = static_cast<int>(threadIdx.x);
  if (at >= kTileOutputs * kTileBatch) return;
  // Neighbouring threads write neighbouring outputs.
  const int m = at % kTileOutputs, row = first_row + at / kTileOutputs, output = tile * kTileOutputs + m;
  if (row >= job.batch || output >= job.outputs) return;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kPackedWarps; ++w) sum += sums[w][m * kTileBatch + at / kTileOutputs];
  job.out[static_cast<int64_t>(row) * job.outputs + output] = float16_bits(sum);
}

using Kernel = void (*)(PackedJob);

constexpr int64_t kLaunchRows = 32768 * kTileBatch;  // a grid has 65535 thread blocks in this direction

template <bool kCodebook>
constexpr Kernel kKernels[kMostBits] = {multiply_packed<1, kCodebook>, multiply_packed<2, kCodebook>,
                                        multiply_packed<3, kCodebook>, multiply_packed<4, kCodebook>,
                                        multiply_packed<5, kCodebook>, multiply_packed<6, kCodebook>,
                                        multiply_packed<7, kCodebook>, multiply_packed<8, kCodebook>};

}  // namespace
}  // namespace toolkit::cuda

int32_t tk_cuda_packed(const tk_packed* p, void* stream) {
  using namespace toolkit::cuda;
  if (const int32_t status = tk_packed_check(p)) return status;
  if (reinterpret_cast<uintptr_t>(p->packed) % 16 != 0) return TK_ERR_ARGUMENT;
  const PackedJob job = packed_job(*p);
  const Kernel kernel = p->codebook ? kKernels<true>[p->bits - 1] : kKernels<false>[p->bits - 1];
  for (int64_t row = 0; row < p->batch; row += kLaunchRows) {
    PackedJob part = job;
    part.x += row * p->inputs;
    part.out += row * p->outputs;
    part.batch = static_cast<int32_t>(std::min(p->batch - row, kLaunchRows));
    const dim3 grid(static_cast<unsigned>(packed_tiles(p->outputs)),
                    static_cast<unsigned>((part.batch + kTileBatch - 1) / kTileBatch));
    kernel<<<grid, kPackedWarps * kWarpLanes, 0, static_cast<cudaStream_t>(stream)>>>(part);
    if (const tk_status status = remember(cudaGetLastError(), "starting the kernel")) return status;
  }
  return TK_OK;
}
