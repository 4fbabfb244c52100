// The device's program on the host, lane by lane: what is tested where there is no GPU.
// SPDX-License-Identifier: Apache-2.0
#include "emulate.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "decode_plan.h"
#include "exception_guard.h"
#include "kernel_choice.h"
#include "output_request.h"
#include "warp_block.h"
#include "wide_reader.h"

namespace toolkit::cuda {
namespace {

using Decode = void (*)(const HostWarp&, const DecodeLaunch&, const LaunchPart&, const BlockJob&, const WarpMemory&);

struct HostDecoders {
  using Function = Decode;
  template <class Symbol, Layout kLayout, SetKind kSet>
  static constexpr Function kOf = decode_block<Symbol, kLayout, kSet, HostWarp>;
};

// Memory of exactly the size asked for, at a multiple of 16 bytes, so that a sanitizer sees every access outside.
struct Aligned {
  explicit Aligned(size_t bytes) : data(static_cast<uint8_t*>(::operator new[](bytes, std::align_val_t(16)))) {}
  ~Aligned() { ::operator delete[](data, std::align_val_t(16)); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  uint8_t* data;
};

}  // namespace

void run_on_host(const DecodePlan& plan, const DeviceLimits& limits, const DecodeLaunch& launch) {
  const Geometry g = geometry_of(plan, limits, launch.num_blocks);
  const Decode decode = kernel_of<HostDecoders>(plan);
  const HostWarp warp;
  for (int32_t block = 0; block < g.grid; ++block) {
    const Aligned shared(static_cast<size_t>(g.shared_bytes));
    const bool in_shared = g.layout != Layout::kGlobalBuckets;
    const uint32_t copied = launch.record_bytes + (in_shared ? launch.table_bytes : 0);
    std::memcpy(shared.data, launch.tables, copied);
    for (int32_t w = 0; w < g.warps; ++w) {
      const uint32_t own = copied + static_cast<uint32_t>(w) * kWarpBytes;
      const WarpMemory memory{shared.data, in_shared ? shared.data : launch.tables, own, own + kTileBytes};
      for (auto b = static_cast<uint32_t>(w * g.grid + block); b < launch.num_blocks;
           b += static_cast<uint32_t>(g.grid * g.warps)) {
        const LaunchPart& part = part_of(launch, b);
        decode(warp, launch, part, launch.blocks[b + part.blocks_at], memory);
      }
    }
  }
  for (uint32_t p = 0; p < launch.num_parts; ++p) {
    const LaunchPart& part = launch.parts[p];
    for (uint32_t i = 0; i < part.num_patches; ++i)
      if (!put_patch(part, launch.tensors[part.tensor], launch.patches[part.patches_at + i]))
        warp.report(part.status, kStreamError);
  }
}

namespace {

// Memory that is read in units, with zeros behind its end.
struct HostBlob {
  HostBlob(const uint16_t* blob, int64_t num_words)
      : words((num_words + 3) / 4 * 4), memory(static_cast<size_t>(words) * 2) {
    std::memset(memory.data, 0, static_cast<size_t>(words) * 2);
    std::memcpy(memory.data, blob, static_cast<size_t>(num_words) * 2);
  }
  int64_t words;
  Aligned memory;
};

// Decodes some tensors of one of the segment's launch_groups; request(plan, place) says what becomes of each.
template <class Request>
tk_status emulate(const tk_wide_reader& reader, const std::vector<int64_t>& tensors, int layout, Request request) {
  const DeviceLimits limits;
  const DecodePlan plan = make_plan(reader.segment, reader.blob, tensors, limits, layout);
  if (!plan.fits) return TK_ERR_ARGUMENT;
  const HostBlob blob(reader.blob, reader.num_words);
  const Aligned image(plan.image.size());
  std::memcpy(image.data, plan.image.data(), plan.image.size());
  uint32_t status = TK_OK;
  for (size_t place = 0; place < tensors.size();) {
    DecodeLaunch launch = launch_at(plan, image.data, reinterpret_cast<const uint16_t*>(blob.memory.data), blob.words);
    for (; place < tensors.size(); ++place) {
      PartRequest part = request(plan, place);
      part.status = &status;
      if (!add_part(plan, part, &launch)) break;
    }
    run_on_host(plan, limits, launch);
  }
  return static_cast<tk_status>(status);
}

}  // namespace
}  // namespace toolkit::cuda

using toolkit::guarded;
using namespace toolkit::cuda;

int32_t tk_plan_describe(const tk_wide_reader* reader, int64_t tensor, int32_t layout, int32_t multiprocessors,
                         int32_t shared_bytes, tk_plan_info* info) {
  if (!reader || !info || layout < -1 || layout >= toolkit::cuda::kLayouts || multiprocessors < 1 || shared_bytes < 0)
    return TK_ERR_ARGUMENT;
  const auto& s = reader->segment;
  if (tensor < -1 || tensor >= static_cast<int64_t>(s.tensors.size())) return TK_ERR_ARGUMENT;
  return guarded([&]() -> int32_t {
    toolkit::cuda::DeviceLimits limits;
    limits.multiprocessors = multiprocessors;
    limits.shared_bytes = shared_bytes;
    const bool all = tensor < 0;
    for (const std::vector<int64_t>& group : toolkit::cuda::launch_groups(s)) {
      const auto at = std::find(group.begin(), group.end(), tensor);
      if (!all && at == group.end()) continue;
      *info = describe(make_plan(s, reader->blob, group, limits, layout), limits, all ? -1 : at - group.begin());
      return TK_OK;
    }
    return TK_ERR_ARGUMENT;
  });
}

int32_t tk_emulate_decode(const tk_wide_reader* reader, int64_t tensor, int32_t layout, const tk_output* output,
                          void* out, int64_t out_bytes) {
  if (!reader || !output || !out || layout < -1 || layout >= toolkit::cuda::kLayouts) return TK_ERR_ARGUMENT;
  const auto& s = reader->segment;
  if (tensor < -1 || tensor >= static_cast<int64_t>(s.tensors.size())) return TK_ERR_ARGUMENT;
  const int64_t size = toolkit::cuda::value_bytes(*output, s.wide);
  return guarded([&]() -> int32_t {
    if (tensor >= 0) {
      const int64_t most = s.tensors[static_cast<size_t>(tensor)].size();
      if (output->num_values < 1 || output->num_values > most || out_bytes != output->num_values * size)
        return TK_ERR_ARGUMENT;
      Epilogue epilogue;
      if (tk_status status = make_epilogue(*output, &epilogue)) return status;
      return emulate(*reader, {tensor}, layout, [&](const DecodePlan& plan, size_t place) -> PartRequest {
        return {place,  epilogue, out, plan.tensors[place].job.lane_steps, static_cast<uint32_t>(output->num_values),
                nullptr};
      });
    }
    if (output->kind != 0 || out_bytes != s.num_lanes * s.num_steps * size) return TK_ERR_ARGUMENT;
    std::memset(out, 0, static_cast<size_t>(out_bytes));
    for (const auto& group : toolkit::cuda::launch_groups(s)) {
      const tk_status status =
          emulate(*reader, group, layout, [&](const DecodePlan& plan, size_t place) -> PartRequest {
            const TensorJob& job = plan.tensors[place].job;
            return {place,       {},       static_cast<char*>(out) + job.first_lane * s.num_steps * size,
                    s.num_steps, job.size, nullptr};
          });
      if (status != TK_OK) return status;
    }
    return TK_OK;
  });
}
