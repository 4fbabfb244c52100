// Packing of weights on the host, and the device's product run there as its tensor cores would.
// SPDX-License-Identifier: Apache-2.0
#include "packed_weights.h"

#include <algorithm>
#include <vector>

#include "cuda_api.h"
#include "packed_layout.h"

namespace toolkit::cuda {
namespace {

// Where a part of a field lies: the 32-bit word, the lowest bit in it, and which bits of the field it is.
struct Place {
  int64_t word;
  int shift, bit;
  uint32_t mask;
};

// The places of the field of an output and an input of its first chunk.
std::vector<Place> places_of(int64_t output, int input, int64_t inputs, int bits) {
  const int64_t tile = output / kTileOutputs * packed_chunks(inputs, bits) * chunk_words(bits);
  const auto row = static_cast<int>(output % kTileOutputs);
  const int lane = row % 8 * 4 + input % kSpanInputs / 8, product = input / kSpanInputs * 2 + input % 8 / 4;
  const int pair = 4 * product + row / 8 + input % 4 / 2 * 2, high = input % 2;
  std::vector<Place> places;
  for (int part = kMostBits; part > 0; part /= 2) {
    if ((bits & part) == 0) continue;
    const int pairs = 16 / part, words = part_words(bits, part);
    places.push_back({tile + kWarpLanes * part_first(bits, part) + lane * words + pair / pairs,
                      pair % pairs * part + 16 * high, part_bit(bits, part), (1u << part) - 1});
  }
  return places;
}

// The places of all inputs of a chunk, input by input.
std::vector<Place> chunk_places(int64_t output, int64_t inputs, int bits) {
  std::vector<Place> places;
  for (int input = 0; input < chunk_inputs(bits); ++input) {
    const std::vector<Place> more = places_of(output, input, inputs, bits);
    places.insert(places.end(), more.begin(), more.end());
  }
  return places;
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
  const int chunks = packed_chunks(job.inputs, kBits);
  const bool aligned = has_aligned_rows(job), fine = has_fine_groups<kBits>(job);
  const auto output_of = [&](int m) { return std::min(tile * kTileOutputs + m, job.outputs - 1); };
  float sums[kTileOutputs][kTileBatch] = {};
  for (int chunk = 0; chunk < chunks; ++chunk) {
    LaneFields<kBits> fields[kWarpLanes];
    for (int lane = 0; lane < kWarpLanes; ++lane)
      fields[lane] = load_fields<kBits>(job.packed + (int64_t{tile} * chunks + chunk) * chunk_words(kBits), lane);
    for (int t = 0; t < products_of(kBits); ++t) {
      const int span = t / 2, input = chunk * chunk_inputs(kBits) + span * kSpanInputs;
      const int64_t group = group_of(job, fine ? input : chunk * chunk_inputs(kBits));
      float a[16][16], b[16][8];
      for (int lane = 0; lane < kWarpLanes; ++lane) {
        const int g = lane / 4, c = lane % 4;
        for (int i = 0; i < 4; ++i) {
          const int m = g + 8 * (i % 2);
          const float zero = job.zeros ? from_float16(job.zeros[group + output_of(m)]) : static_cast<float>(job.zero);
          float values[2];
          values_of<kBits>(job, field_pair<kBits>(fields[lane], t, i), zero, values);
          for (int high = 0; high < 2; ++high) a[m][2 * c + high + 8 * (i / 2)] = values[high];
        }
        const bool has_row = first_row + g < job.batch;
        const uint16_t* const row = job.x + int64_t{has_row ? first_row + g : 0} * job.inputs;
        const Bytes16 eight = load_eight(row, input + lane_input(lane), has_row ? job.inputs : 0, aligned);
        for (int k = 0; k < 4; ++k) {
          const uint32_t word = eight.word[t % 2 * 2 + k / 2];
          b[2 * c + k % 2 + 8 * (k / 2)][g] = from_float16(static_cast<uint16_t>(word >> (k % 2 * 16)));
        }
      }
      for (int m = 0; m < kTileOutputs; ++m) {
        const float scale = from_float16(job.scales[group + output_of(m)]);
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
        job.out[int64_t{first_row + n} * job.outputs + tile * kTileOutputs + m] = float16_bits(sums[m][n]);
}

using MultiplyTile = void (*)(const PackedJob&, int, int);
constexpr MultiplyTile kMultiplyTile[kMostBits] = {multiply_tile<1>, multiply_tile<2>, multiply_tile<3>,
                                                   multiply_tile<4>, multiply_tile<5>, multiply_tile<6>,
                                                   multiply_tile<7>, multiply_tile<8>};

}  // namespace

int64_t packed_words(int64_t outputs, int64_t inputs, int bits) {
  return static_cast<int64_t>(packed_tiles(outputs)) * packed_chunks(inputs, bits) * chunk_words(bits);
}

bool pack_fields(const uint8_t* fields, int64_t outputs, int64_t inputs, int bits, uint32_t* packed) {
  std::fill_n(packed, packed_words(outputs, inputs, bits), 0u);
  const int64_t chunk = chunk_inputs(bits);
  for (int64_t n = 0; n < outputs; ++n) {
    const std::vector<Place> places = chunk_places(n, inputs, bits);
    const size_t parts = places.size() / static_cast<size_t>(chunk);
    for (int64_t first = 0; first < inputs; first += chunk) {
      uint32_t* const to = packed + first / chunk * chunk_words(bits);
      auto place = places.begin();
      for (int64_t k = first; k < std::min(first + chunk, inputs); ++k) {
        const uint32_t field = fields[n * inputs + k];
        if (field >> bits) return false;
        for (size_t part = 0; part < parts; ++part, ++place)
          to[place->word] |= (field >> place->bit & place->mask) << place->shift;
      }
    }
  }
  return true;
}

void unpack_output(const uint32_t* packed, int64_t output, int64_t inputs, int bits, uint8_t* fields) {
  const std::vector<Place> places = chunk_places(output, inputs, bits);
  const int64_t chunk = chunk_inputs(bits);
  const size_t parts = places.size() / static_cast<size_t>(chunk);
  for (int64_t first = 0; first < inputs; first += chunk) {
    const uint32_t* const from = packed + first / chunk * chunk_words(bits);
    auto place = places.begin();
    for (int64_t k = first; k < std::min(first + chunk, inputs); ++k) {
      uint32_t field = 0;
      for (size_t part = 0; part < parts; ++part, ++place)
        field |= (from[place->word] >> place->shift & place->mask) << place->bit;
      fields[k] = static_cast<uint8_t>(field);
    }
  }
}

}  // namespace toolkit::cuda

namespace {

bool is_packable(int64_t outputs, int64_t inputs, int32_t bits) {
  constexpr int64_t most = int64_t{1} << 24;
  return bits >= 1 && bits <= toolkit::cuda::kMostBits && outputs >= 1 && inputs >= 1 && outputs <= most &&
         inputs <= most;
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
  if (!p || !is_packable(p->outputs, p->inputs, p->bits)) return TK_ERR_ARGUMENT;
  if (!p->x || !p->packed || !p->scales || !p->out || p->batch < 1 || p->batch > 1 << 30) return TK_ERR_ARGUMENT;
  if (p->group_inputs < 1 || (p->group_inputs < p->inputs && p->group_inputs % kSpanInputs != 0))
    return TK_ERR_ARGUMENT;
  if (p->codebook && p->zeros) return TK_ERR_ARGUMENT;
  return p->zero >= 0 && p->zero < 256 ? TK_OK : TK_ERR_ARGUMENT;
}

int32_t tk_emulate_packed(const tk_packed* p) {
  using namespace toolkit::cuda;
  if (const int32_t status = tk_packed_check(p)) return status;
  const PackedJob job = packed_job(*p);
  for (int row = 0; row < job.batch; row += kTileBatch)
    for (int tile = 0; tile < packed_tiles(job.outputs); ++tile) kMultiplyTile[job.bits - 1](job, tile, row);
  return TK_OK;
}
