// Products of few rows with packed weights: each weight is read once from memory, packed, and multiplied by the tensor
// cores. Sums over the inputs are divided among the warps of a thread block and put together in a fixed order.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cuda_api.h"
#include "device_memory.h"
#include "packed_layout.h"

namespace toolkit::cuda {
namespace {

constexpr int kBlocksOfMultiprocessor = 2;
// Chunks of weights that are on their way to a warp: 32 words of each lane, fewer where narrow parts would take as many
// loads again.
TK_HOST_DEVICE constexpr int chunks_ahead(int bits) { return bits == 1 ? 4 : lane_words(bits) > 4 ? 4 : 8; }

// Rows of x that a warp stages in shared memory, for its own inputs: bytes of all of them. A row is followed by half a
// line, so that two rows lie beside each other in the banks.
constexpr int kStageBytes = kTileBatch * (2 * 256 + 64);
__host__ __device__ constexpr int stage_inputs(int rows) {
  return (kStageBytes / (rows > 4 ? 8 : rows > 2 ? 4 : rows) - 64) / 2 / 256 * 256;
}

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

__device__ __forceinline__ uint32_t add_halves(uint32_t a, uint32_t b) {
  uint32_t sum;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
  return sum;
}

__device__ __forceinline__ uint32_t multiply_add_halves(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t sum;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}

__device__ __forceinline__ uint32_t twice(uint16_t bits) { return bits | static_cast<uint32_t>(bits) << 16; }

// Scales and zero points of a lane's two outputs in one group.
struct RawGroup {
  uint16_t scale[2], zero[2];
};

// What they are made to: [output]; minus[n]: what is added to a number left at bit n * left_step, made 2^-that.
template <int kBits>
struct Group {
  float scale[2];
  uint32_t minus[count_of_lefts(kBits)][2];
};

template <int kBits, bool kCodebook>
__global__ void __launch_bounds__(kPackedWarps* kWarpLanes, kBlocksOfMultiprocessor)
    multiply_packed(const __grid_constant__ PackedJob job) {
  constexpr int kSpans = products_of(kBits) / 2, kInputs = chunk_inputs(kBits), kAhead = chunks_ahead(kBits);
  __shared__ float sums[kPackedWarps][kTileOutputs * kTileBatch];
  __shared__ __align__(128) uint8_t stages[kPackedWarps][kStageBytes];
  __shared__ __align__(16) uint8_t nothing[64];  // of rows that there are not
  __shared__ uint16_t book[kCodebook ? 1 << kBits : 1];
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(DeviceWarp{lane}.uniform(threadIdx.x / kWarpLanes));
  const int g = lane / 4, c = lane % 4;
  const int tile = static_cast<int>(blockIdx.x), first_row = static_cast<int>(blockIdx.y) * kTileBatch;
  const int rows = min(job.batch - first_row, kTileBatch);
  // Each warp has chunks that follow one another.
  const int chunks = (job.inputs + kInputs - 1) / kInputs, each = (chunks + kPackedWarps - 1) / kPackedWarps;
  const int begin = min(warp * each, chunks), end = min(begin + each, chunks);
  const uint32_t* const weights = job.packed + static_cast<int64_t>(tile) * chunks * chunk_words(kBits);
  const auto load = [&](int chunk) {
    return load_fields<kBits>(weights + static_cast<int64_t>(chunk) * chunk_words(kBits), lane);
  };
  LaneFields<kBits> loaded[kAhead];
#pragma unroll
  for (int n = 0; n < kAhead; ++n)
    if (begin + n < end) loaded[n] = load(begin + n);

  if constexpr (kCodebook)
    for (int i = static_cast<int>(threadIdx.x); i < 1 << kBits; i += kPackedWarps * kWarpLanes)
      book[i] = job.codebook[i];
  if (threadIdx.x < sizeof nothing / sizeof(uint32_t)) reinterpret_cast<uint32_t*>(nothing)[threadIdx.x] = 0;
  __syncthreads();

  // Outputs behind the last are those of padding; their scales are read from the last.
  const int outputs[2] = {min(tile * kTileOutputs + g, job.outputs - 1),
                          min(tile * kTileOutputs + g + 8, job.outputs - 1)};
  const int last_group = (job.inputs - 1) / job.group_inputs;
  const auto load_group = [&](int number) {
    RawGroup raw;
    const int64_t at = static_cast<int64_t>(min(number, last_group)) * job.outputs;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      raw.scale[m] = job.scales[at + outputs[m]];
      raw.zero[m] = !kCodebook && job.zeros ? job.zeros[at + outputs[m]] : 0;
    }
    return raw;
  };
  const auto make_group = [&](const RawGroup& raw) {
    Group<kBits> group;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      group.scale[m] = from_float16(raw.scale[m]);
      const float zero = job.zeros ? from_float16(raw.zero[m]) : static_cast<float>(job.zero);
      // Zero points are those of numbers of 1024 + field: integers.
      const float whole = from_float16(float16_bits(1024 + zero)) - 1024;
#pragma unroll
      for (int n = 0; n < count_of_lefts(kBits); ++n)
        group.minus[n][m] = twice(float16_bits(-static_cast<float>(1024 >> (n * left_step(kBits))) - whole));
    }
    return group;
  };
  int number = begin * kInputs / job.group_inputs;
  // The input that the next group begins with.
  int group_end = (number + 1) * job.group_inputs;
  Group<kBits> group = make_group(load_group(number));
  RawGroup next = load_group(number + 1);

  // Rows of x, as far as they are staged.
  const bool aligned = has_aligned_rows(job);
  const int most_staged = stage_inputs(rows), pitch = 2 * most_staged + 64;
  uint8_t* const stage = stages[warp];
  const uint8_t* const own = g < rows ? stage + g * pitch + 16 * c : nothing + 16 * c;
  const int advance = g < rows ? 2 * kSpanInputs : 0;
  const uint8_t* from = own;
  int staged = begin * kInputs;  // the input behind the last that is staged
  const auto stage_rows = [&](int first) {
    __syncwarp();
    for (int row = 0; row < rows; ++row)
      for (int i = 8 * lane; i < most_staged && first + i < end * kInputs; i += 8 * kWarpLanes)
        *reinterpret_cast<Bytes16*>(stage + row * pitch + 2 * i) =
            load_eight(job.x + static_cast<int64_t>(first_row + row) * job.inputs, first + i, job.inputs, aligned);
    __syncwarp();
    staged = first + most_staged;
    from = own;
  };

  const bool fine = has_fine_groups<kBits>(job);
  float total[4] = {0, 0, 0, 0};
  for (int first = begin; first < end; first += kAhead) {
#pragma unroll
    for (int n = 0; n < kAhead; ++n) {
      const int chunk = first + n;
      if (chunk >= end) break;
      if (chunk * kInputs == staged) stage_rows(staged);
      const LaneFields<kBits>& fields = loaded[n];
      float d[4] = {0, 0, 0, 0};
#pragma unroll
      for (int span = 0; span < kSpans; ++span) {
        if ((span == 0 || fine) && chunk * kInputs + span * kSpanInputs == group_end) {
          group = make_group(next);
          ++number;
          group_end += job.group_inputs;
          next = load_group(number + 1);
        }
        const Bytes16 b = *reinterpret_cast<const Bytes16*>(from);
        from += advance;
#pragma unroll
        for (int s = 0; s < 2; ++s) {
          uint32_t a[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int t = 2 * span + s;
            if constexpr (kCodebook) {
              const uint32_t pair = field_pair<kBits>(fields, t, i);
              a[i] = book[pair & 0xff] | static_cast<uint32_t>(book[pair >> 16]) << 16;
            } else {
              const int left = left_at(kBits, 4 * t + i);
              const uint32_t number_pair = biased_pair<kBits>(fields, t, i);
              const uint32_t minus = group.minus[left / left_step(kBits)][i % 2];
              // 2^-left as float16 has the exponent 15 - left.
              a[i] = left ? multiply_add_halves(number_pair, (15u - left) * 0x04000400u, minus)
                          : add_halves(number_pair, minus);
            }
          }
          multiply_add(d, a, b.word + 2 * s);
        }
        if (span == kSpans - 1 || fine) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            total[i] += group.scale[i / 2] * d[i];
            d[i] = 0;
          }
        }
      }
      if (chunk + kAhead < end) loaded[n] = load(chunk + kAhead);
    }
  }

  float* const sum_of = sums[warp];
  sum_of[g * kTileBatch + 2 * c] = total[0];
  sum_of[g * kTileBatch + 2 * c + 1] = total[1];
  sum_of[(g + 8) * kTileBatch + 2 * c] = total[2];
  sum_of[(g + 8) * kTileBatch + 2 * c + 1] = total[3];
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
