// A blob on a device: its copy there, the plans of its tensors with their tables, a status for each tensor.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tuple>

#include "device_blob.h"
#include "weak_cache.h"
#include "wide_kernels.h"
#include "wide_reader.h"

namespace toolkit::cuda {
namespace {

using Words = std::shared_ptr<const DeviceBuffer>;

// The copy of a reader's blob on the current device, read there in units of four words.
Words words_of(const tk_wide_reader& reader, int device) {
  static WeakCache<std::tuple<uint64_t, int>, const DeviceBuffer> words;
  return words.get({reader.serial, device}, [&]() -> Words {
    const size_t bytes = static_cast<size_t>(reader.num_words) * 2, padded = (bytes + 7) / 8 * 8;
    auto made = std::make_shared<DeviceBuffer>(padded);
    check(cudaMemset(made->as<char>() + padded - 8, 0, 8), "clearing");
    upload(made->as<void>(), reader.blob, bytes);
    return made;
  });
}

DeviceLimits limits_of(int device) {
  DeviceLimits limits;
  check(cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, device), "asking the device");
  check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "asking the device");
  check(cudaDeviceGetAttribute(&limits.block_threads, cudaDevAttrMaxThreadsPerBlock, device), "asking the device");
  return limits;
}

}  // namespace

StatusWords::StatusWords(size_t count) {
  const size_t bytes = std::max<size_t>(count, 1) * sizeof *host_;
  check(cudaHostAlloc(reinterpret_cast<void**>(&host_), bytes, cudaHostAllocMapped), "allocating");
  std::fill_n(host_, bytes / sizeof *host_, static_cast<uint32_t>(TK_OK));
  const cudaError_t error = cudaHostGetDevicePointer(reinterpret_cast<void**>(&device_), host_, 0);
  if (error != cudaSuccess) cudaFreeHost(host_);
  check(error, "mapping");
}

StatusWords::~StatusWords() { cudaFreeHost(host_); }

tk_status StatusWords::read(size_t number) const {
  return static_cast<tk_status>(static_cast<const volatile uint32_t*>(host_)[number]);
}

std::shared_ptr<DeviceBlob> DeviceBlob::of(const tk_wide_reader& reader, int device, int layout) {
  static WeakCache<std::tuple<uint64_t, int, int>, DeviceBlob> blobs;
  return blobs.get({reader.serial, device, layout},
                   [&] { return std::make_shared<DeviceBlob>(reader, device, layout, words_of(reader, device)); });
}

DeviceBlob::DeviceBlob(const tk_wide_reader& reader, int device, int layout, Words words)
    : device_(device),
      wide_(reader.segment.wide),
      num_lanes_(reader.segment.num_lanes),
      num_steps_(reader.segment.num_steps),
      limits_(limits_of(device)),
      words_(std::move(words)),
      places_(reader.segment.tensors.size()),
      status_(reader.segment.tensors.size()) {
  for (const std::vector<int64_t>& group : launch_groups(reader.segment)) {
    Way way{make_plan(reader.segment, reader.blob, group, limits_, layout), nullptr};
    if (!way.plan.fits) throw std::runtime_error("tables of this layout do not fit shared memory");
    for (size_t place = 0; place < group.size(); ++place)
      places_[static_cast<size_t>(group[place])] = {ways_.size(), place};
    way.image = std::make_unique<DeviceBuffer>(way.plan.image.data(), way.plan.image.size());
    std::vector<uint8_t>().swap(way.plan.image);
    check(prepare_decode(way.plan, limits_), "preparing the kernel");
    ways_.push_back(std::move(way));
  }
}

PartRequest DeviceBlob::request_of(int64_t tensor, void* out, int64_t out_stride, int64_t most_values) const {
  const auto number = static_cast<size_t>(tensor);
  return {places_[number].place, {}, out, out_stride, static_cast<uint32_t>(most_values), status_.on_device(number)};
}

tk_plan_info DeviceBlob::describe(int64_t tensor) const {
  if (tensor < 0) return cuda::describe(ways_.front().plan, limits_, -1);
  const Place at = place_of(tensor);
  return cuda::describe(ways_[at.way].plan, limits_, static_cast<int64_t>(at.place));
}

void DeviceBlob::launch(size_t way_number, std::vector<PartRequest> parts, cudaStream_t stream) const {
  const Way& way = ways_[way_number];
  // Long blocks first, so that the last ones to end are short.
  std::stable_sort(parts.begin(), parts.end(), [&](const PartRequest& p, const PartRequest& q) {
    return way.plan.tensors[p.place].job.lane_steps > way.plan.tensors[q.place].job.lane_steps;
  });
  const auto words = static_cast<int64_t>(words_->bytes() / sizeof(uint16_t));
  const auto empty = [&] { return launch_at(way.plan, way.image->as<uint8_t>(), words_->as<uint16_t>(), words); };
  DecodeLaunch launch = empty();
  const auto start = [&] { check(launch_decode(way.plan, limits_, launch, stream), "starting the kernel"); };
  for (const PartRequest& part : parts) {
    if (add_part(way.plan, part, &launch)) continue;
    start();
    launch = empty();
    add_part(way.plan, part, &launch);
  }
  start();
}

void DeviceBlob::verify() {
  std::call_once(verified_, [&] {
    for (size_t way = 0; way < ways_.size(); ++way) {
      std::vector<PartRequest> parts;
      for (const PlannedTensor& tensor : ways_[way].plan.tensors) {
        parts.push_back(request_of(tensor.number, nullptr, tensor.job.lane_steps, tensor.job.size));
        parts.back().epilogue.kind = OutKind::kNothing;
      }
      launch(way, std::move(parts), nullptr);
    }
    check(cudaStreamSynchronize(nullptr), "waiting for the device");
  });
}

}  // namespace toolkit::cuda
