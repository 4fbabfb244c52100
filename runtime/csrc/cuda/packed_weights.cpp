// Packing of weights on the host, and the device's product run there as its tensor cores would.
// SPDX-License-Identifier: Apache-2.0
#include "packed_weights.h"

#include <algorithm>
#include <vector>

#include "cuda_api.h"
#include "packed_layout.h"

namespace toolkit::cuda {
namespace {

// Where the field of an output and an input lies: the 32-bit word, and the lowest bit in it.
struct Place {
  int64_t word;
  int shift;
};

Place place_of(int64_t output, int64_t input, int64_t inputs, int bits) {
  const int chunk = chunk_inputs(bits), products = products_of(bits);
  const int64_t tile = output / kTileOutputs, at = tile * packed_chunks(inputs, bits) + input / chunk;
  const auto inside = static_cast<int>(input % chunk), row = static_cast<int>(output % kTileOutputs);
  const int c = inside / (4 * products), t = inside % (4 * products) / 4, k = inside % 4;
  const int lane = row % 8 * 4 + c, i = row / 8 + 2 * (k / 2), high = k % 2;
  const int64_t first = (at * kWarpLanes + lane) * 4;
  if (bits == 8) return {first + 2 * t + i / 2, i % 2 * 8 + high * 16};
  if (bits == 4) return {first + t, 4 * i + 16 * high};
  return {first + t / 2, 2 * (4 * (t % 2) + i) + 16 * high};
}

// What a pair of fields is as two float16 numbers.
template <int kBits>
void values_of(const PackedJob& job, uint32_t pair, float zero, float* values) {
  for (int high = 0; high < 2; ++high) {
    const uint32_t field = pair >> (16 * high) & 0xffff;
    values[high] = job.codebook
                       ? from_float16(job.codebook[field])
                       : from_float16(static_cast<uint16_t>(biased_halves(pair) >> (16 * high))) - (1024 + zero);
  }
}

// The product of one tile of outputs with eight rows of x, from the lanes' registers as mma.m16n8k16 takes them.
template <int kBits>
void multiply_tile(const PackedJob& job, int tile, int first_row) {
  const int chunks = packed_chunks(job.inputs, kBits), lane_inputs = 4 * products_of(kBits);
  float sums[kTileOutputs][kTileBatch] = {};
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int group = chunk * chunk_inputs(kBits) / job.group_inputs;
    for (int t = 0; t < products_of(kBits); ++t) {
      float a[16][16], b[16][8] = {};
      for (int lane = 0; lane < kWarpLanes; ++lane) {
        const auto* const from =
            reinterpret_cast<const Bytes16*>(job.packed) + (static_cast<int64_t>(tile) * chunks + chunk) * 32 + lane;
        const int g = lane / 4, c = lane % 4;
        for (int i = 0; i < 4; ++i) {
          const int row = g + 8 * (i % 2), output = std::min(tile * kTileOutputs + row, job.outputs - 1);
          const float zero = job.zeros ? from_float16(job.zeros[static_cast<int64_t>(group) * job.outputs + output])
                                       : static_cast<float>(job.zero);
          float values[2];
          values_of<kBits>(job, field_pair<kBits>(*from, t, i), zero, values);
          for (int high = 0; high < 2; ++high) a[row][2 * c + high + 8 * (i / 2)] = values[high];
        }
        for (int k = 0; k < 4; ++k) {
          const int input = chunk * chunk_inputs(kBits) + c * lane_inputs + 4 * t + k, row = first_row + g;
          if (row < job.batch && input < job.inputs)
            b[2 * c + k % 2 + 8 * (k / 2)][g] = from_float16(job.x[static_cast<int64_t>(row) * job.inputs + input]);
        }
      }
      for (int m = 0; m < kTileOutputs; ++m) {
        const int output = std::min(tile * kTileOutputs + m, job.outputs - 1);
        const float scale = from_float16(job.scales[static_cast<int64_t>(group) * job.outputs + output]);
        for (int n = 0; n < kTileBatch; ++n) {
          float sum = 0;
          for (int k = 0; k < 16; ++k) sum += a[m][k] * b[k][n];
          sums[m][n] += scale * sum;
        }
      }
    }
  }
  for (int m = 0; m < kTileOutputs; ++m)
    for (int n = 0; n < kTileBatch; ++n)
      if (tile * kTileOutputs + m < job.outputs && first_row + n < job.batch)
        job.out[static_cast<int64_t>(first_row + n) * job.outputs + tile * kTileOutputs + m] = float16_bits(sums[m][n]);
}

}  // namespace

int64_t packed_words(int64_t outputs, int64_t inputs, int bits) {
  return static_cast<int64_t>(packed_tiles(outputs)) * packed_chunks(inputs, bits) * kWarpLanes * 4;
}

bool pack_fields(const uint8_t* fields, int64_t outputs, int64_t inputs, int bits, uint32_t* packed) {
  std::fill_n(packed, packed_words(outputs, inputs, bits), 0u);
  const int64_t chunk = chunk_inputs(bits);
  std::vector<Place> places(static_cast<size_t>(chunk));  // of an output's inputs in its first chunk
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t k = 0; k < chunk; ++k) places[static_cast<size_t>(k)] = place_of(n, k, inputs, bits);
    for (int64_t first = 0; first < inputs; first += chunk) {
      uint32_t* const to = packed + first / chunk * kWarpLanes * 4;
      const int64_t count = std::min(chunk, inputs - first);
      for (int64_t k = 0; k < count; ++k) {
        const uint32_t field = fields[n * inputs + first + k];
        if (field >> bits) return false;
        to[places[static_cast<size_t>(k)].word] |= field << places[static_cast<size_t>(k)].shift;
      }
    }
  }
  return true;
}

void unpack_output(const uint32_t* packed, int64_t output, int64_t inputs, int bits, uint8_t* fields) {
  const uint32_t mask = (1u << bits) - 1;
  for (int64_t k = 0; k < inputs; ++k) {
    const Place place = place_of(output, k, inputs, bits);
    fields[k] = static_cast<uint8_t>(packed[place.word] >> place.shift & mask);
  }
}

}  // namespace toolkit::cuda

namespace {

bool is_packable(int64_t outputs, int64_t inputs, int32_t bits) {
  constexpr int64_t most = int64_t{1} << 24;
  return (bits == 2 || bits == 4 || bits == 8) && outputs >= 1 && inputs >= 1 && outputs <= most && inputs <= most;
}

}  // namespace

int64_t tk_packed_words(int64_t outputs, int64_t inputs, int32_t bits) {
  return is_packable(outputs, inputs, bits) ? toolkit::cuda::packed_words(outputs, inputs, bits) : 0;
}

int32_t tk_pack_fields(const uint8_t* fields, int64_t outputs, int64_t inputs, int32_t bits, uint32_t* packed) {
  if (!fields || !packed || !is_packable(outputs, inputs, bits)) return TK_ERR_ARGUMENT;
  return toolkit::cuda::pack_fields(fields, outputs, inputs, bits, packed) ? TK_OK : TK_ERR_ARGUMENT;
}

int32_t tk_unpack_fields(const uint32_t* packed, int64_t outputs, int64_t inputs, int32_t bits, uint8_t* fields) {
  if (!fields || !packed || !is_packable(outputs, inputs, bits)) return TK_ERR_ARGUMENT;
  for (int64_t n = 0; n < outputs; ++n) toolkit::cuda::unpack_output(packed, n, inputs, bits, fields + n * inputs);
  return TK_OK;
}

int32_t tk_packed_check(const tk_packed* p) {
  using namespace toolkit::cuda;
  if (!p || !is_packable(p->outputs, p->inputs, p->bits) || p->inputs % 8 != 0) return TK_ERR_ARGUMENT;
  if (!p->x || !p->packed || !p->scales || !p->out || p->batch < 1 || p->batch > 0x7fff * kTileBatch)
    return TK_ERR_ARGUMENT;
  if (p->group_inputs < 1 || (p->group_inputs < p->inputs && p->group_inputs % chunk_inputs(p->bits) != 0))
    return TK_ERR_ARGUMENT;
  if (p->codebook && p->zeros) return TK_ERR_ARGUMENT;
  return p->zero >= 0 && p->zero < 256 ? TK_OK : TK_ERR_ARGUMENT;
}

int32_t tk_emulate_packed(const tk_packed* p) {
  if (const int32_t status = tk_packed_check(p)) return status;
  const toolkit::cuda::PackedJob job = toolkit::cuda::packed_job(*p);
  for (int row = 0; row < job.batch; row += toolkit::cuda::kTileBatch)
    for (int tile = 0; tile < toolkit::cuda::packed_tiles(job.outputs); ++tile) {
      if (job.bits == 8)
        toolkit::cuda::multiply_tile<8>(job, tile, row);
      else if (job.bits == 4)
        toolkit::cuda::multiply_tile<4>(job, tile, row);
      else
        toolkit::cuda::multiply_tile<2>(job, tile, row);
    }
  return TK_OK;
}
