// Packed weights as numbers again, on the host, lane by lane as on the device.
// SPDX-License-Identifier: Apache-2.0
#include "packed_unpack.h"

#include "threads.h"

namespace toolkit::cuda {
namespace {

template <int kBits, class Value>
void unpack_tile(const UnpackJob<Value>& job, int tile) {
  for (int chunk = 0; chunk < packed_chunks(job.inputs, kBits); ++chunk)
    for (int lane = 0; lane < kWarpLanes; ++lane) unpack_lane<kBits>(job, tile, chunk, lane);
}

template <class Value>
using UnpackTile = void (*)(const UnpackJob<Value>&, int);

template <class Value>
constexpr UnpackTile<Value> kUnpackTile[kMostBits] = {
    unpack_tile<1, Value>, unpack_tile<2, Value>, unpack_tile<3, Value>, unpack_tile<4, Value>,
    unpack_tile<5, Value>, unpack_tile<6, Value>, unpack_tile<7, Value>, unpack_tile<8, Value>};

template <class Value>
void unpack(const tk_unpacking& u, int threads) {
  const UnpackJob<Value> job = unpack_job<Value>(u);
  parallel_for(packed_tiles(u.outputs), threads, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) kUnpackTile<Value>[u.bits - 1](job, static_cast<int>(tile));
  });
}

}  // namespace
}  // namespace toolkit::cuda

int32_t tk_unpacking_check(const tk_unpacking* u) {
  if (!u || tk_packed_words(u->outputs, u->inputs, u->bits) == 0) return TK_ERR_ARGUMENT;
  if (!u->packed || !u->scales || !u->out || (u->zeros == nullptr) == (u->codebook == nullptr)) return TK_ERR_ARGUMENT;
  if (u->group_inputs < 1 || (u->group_inputs < u->inputs && u->group_inputs % toolkit::cuda::kSpanInputs != 0))
    return TK_ERR_ARGUMENT;
  return u->type == 1 || u->type == 10 ? TK_OK : TK_ERR_ARGUMENT;
}

int32_t tk_unpack_weight(const tk_unpacking* u, int32_t threads) {
  if (const int32_t status = tk_unpacking_check(u)) return status;
  if (u->type == 1)
    toolkit::cuda::unpack<float>(*u, threads);
  else
    toolkit::cuda::unpack<uint16_t>(*u, threads);
  return TK_OK;
}
