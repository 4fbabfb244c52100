// Decoders of tensors on a device: the blob's copy there, plans, launches.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "device_decoder.h"
#include "output_request.h"
#include "wide_kernels.h"
#include "wide_reader.h"

namespace toolkit::cuda {
namespace {

thread_local std::string problem;

// Runs f, which returns a status or throws, and remembers what went wrong.
template <class F>
int32_t guarded(F f) {
  try {
    return f();
  } catch (const CudaError& error) {
    problem = error.what();
    return status_of(error.code);
  } catch (const std::bad_alloc&) {
    problem = "out of memory";
    return TK_ERR_MEMORY;
  } catch (const std::exception& error) {
    problem = error.what();
    return TK_ERR_ARGUMENT;
  } catch (...) {
    problem = "unknown error";
    return TK_ERR_ARGUMENT;
  }
}

using Blob = std::shared_ptr<const DeviceBuffer>;

// The copy of a reader's blob on the current device, which all its decoders there share.
Blob blob_of(const tk_wide_reader& reader, int device) {
  static std::mutex mutex;
  static std::map<std::tuple<uint64_t, int>, std::weak_ptr<const DeviceBuffer>> blobs;
  const std::lock_guard<std::mutex> lock(mutex);
  for (auto entry = blobs.begin(); entry != blobs.end();)
    entry = entry->second.expired() ? blobs.erase(entry) : std::next(entry);
  auto& known = blobs[{reader.serial, device}];
  Blob blob = known.lock();
  if (!blob) {
    // Read in units of four words.
    const size_t bytes = static_cast<size_t>(reader.num_words) * 2, padded = (bytes + 7) / 8 * 8;
    auto made = std::make_shared<DeviceBuffer>(padded);
    check(cudaMemset(made->as<char>() + padded - 8, 0, 8), "clearing");
    upload(made->as<void>(), reader.blob, bytes);
    known = made;
    blob = std::move(made);
  }
  return blob;
}

}  // namespace

tk_status remember(cudaError_t error, const char* what) {
  if (error != cudaSuccess) problem = std::string(what) + ": " + cudaGetErrorString(error);
  return status_of(error);
}

StatusWord::StatusWord() {
  check(cudaHostAlloc(reinterpret_cast<void**>(&host_), sizeof *host_, cudaHostAllocMapped), "allocating");
  *host_ = TK_OK;
  const cudaError_t error = cudaHostGetDevicePointer(reinterpret_cast<void**>(&device_), host_, 0);
  if (error != cudaSuccess) cudaFreeHost(host_);
  check(error, "mapping");
}

StatusWord::~StatusWord() { cudaFreeHost(host_); }

tk_status StatusWord::read() const { return static_cast<tk_status>(*static_cast<const volatile uint32_t*>(host_)); }

DeviceLimits limits_of(int device) {
  DeviceLimits limits;
  check(cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, device), "asking the device");
  check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "asking the device");
  check(cudaDeviceGetAttribute(&limits.block_threads, cudaDevAttrMaxThreadsPerBlock, device), "asking the device");
  return limits;
}

}  // namespace toolkit::cuda

using namespace toolkit::cuda;

const char* tk_cuda_problem(void) { return problem.c_str(); }

int32_t tk_cuda_get_info(int32_t device, tk_cuda_info* info) {
  if (!info) return TK_ERR_ARGUMENT;
  *info = tk_cuda_info{};
  info->built = 1;
  std::snprintf(info->architectures, sizeof info->architectures, "%s", TOOLKIT_CUDA_ARCHITECTURES);
  cudaRuntimeGetVersion(&info->runtime_version);
  cudaDriverGetVersion(&info->driver_version);
  const auto refuse = [&](cudaError_t error) -> int32_t {
    std::snprintf(info->problem, sizeof info->problem, "%s", cudaGetErrorString(error));
    cudaGetLastError();
    return status_of(error);
  };
  if (cudaError_t error = cudaGetDeviceCount(&info->num_devices)) {
    info->num_devices = 0;
    return refuse(error);
  }
  if (device < 0 || device >= info->num_devices) return refuse(cudaErrorInvalidDevice);
  cudaDeviceProp properties;
  if (cudaError_t error = cudaGetDeviceProperties(&properties, device)) return refuse(error);
  info->capability = properties.major * 10 + properties.minor;
  info->multiprocessors = properties.multiProcessorCount;
  info->shared_bytes = static_cast<int32_t>(properties.sharedMemPerBlockOptin);
  std::snprintf(info->name, sizeof info->name, "%.63s", properties.name);
  return guarded([&]() -> int32_t {
    const DeviceScope scope(device);
    size_t free_bytes = 0, total_bytes = 0;
    if (cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes)) return refuse(error);
    info->free_bytes = static_cast<int64_t>(free_bytes);
    info->total_bytes = static_cast<int64_t>(total_bytes);
    return TK_OK;
  });
}

int32_t tk_cuda_open(const tk_wide_reader* reader, int64_t tensor, int32_t device, int32_t layout,
                     tk_cuda_decoder** decoder) {
  if (!reader || !decoder || layout < -1 || layout >= kLayouts) return TK_ERR_ARGUMENT;
  const auto& s = reader->segment;
  if (tensor < -1 || tensor >= static_cast<int64_t>(s.tensors.size())) return TK_ERR_ARGUMENT;
  return guarded([&]() -> int32_t {
    const DeviceScope scope(device);
    const DeviceLimits limits = limits_of(device);
    auto made = std::make_unique<tk_cuda_decoder>();
    made->device = device;
    made->wide = s.wide;
    made->matrix = tensor < 0;
    made->most_values = tensor < 0 ? s.num_lanes * s.num_steps : s.tensors[static_cast<size_t>(tensor)].size();
    made->blob = blob_of(*reader, device);
    const auto groups = tensor < 0 ? launch_groups(s) : std::vector<std::vector<int64_t>>{{tensor}};
    for (const auto& group : groups) {
      tk_cuda_decoder::Part part;
      part.plan = make_plan(s, reader->blob, group, tensor < 0 ? Form::kMatrix : Form::kTensor, limits, layout);
      if (part.plan.geometry.grid == 0) throw std::runtime_error("tables of this layout do not fit shared memory");
      part.image = std::make_unique<DeviceBuffer>(part.plan.image.data(), part.plan.image.size());
      check(prepare_decode(part.plan, limits), "preparing the kernel");
      made->parts.push_back(std::move(part));
    }
    *decoder = made.release();
    return TK_OK;
  });
}

void tk_cuda_close(tk_cuda_decoder* decoder) { delete decoder; }

int32_t tk_cuda_decode(const tk_cuda_decoder* decoder, const tk_output* output, void* out, int64_t out_bytes,
                       void* stream) {
  if (!decoder || !output || !out) return TK_ERR_ARGUMENT;
  const int64_t size = value_bytes(*output, decoder->wide);
  const int64_t values = decoder->matrix ? decoder->most_values : output->num_values;
  if (values < 1 || values > decoder->most_values || out_bytes != values * size) return TK_ERR_ARGUMENT;
  if (decoder->matrix && output->kind != 0) return TK_ERR_ARGUMENT;
  Epilogue epilogue;
  if (tk_status status = make_epilogue(*output, &epilogue)) return status;
  return guarded([&]() -> int32_t {
    const DeviceScope scope(decoder->device);
    auto* const on = static_cast<cudaStream_t>(stream);
    if (decoder->matrix) check(cudaMemsetAsync(out, 0, static_cast<size_t>(out_bytes), on), "clearing");
    for (const auto& part : decoder->parts) {
      DecodeLaunch launch = launch_at(part.plan, part.image->as<uint8_t>(), decoder->blob->as<uint16_t>(),
                                      static_cast<int64_t>(decoder->blob->bytes() / sizeof(uint16_t)));
      settle_epilogue(part.plan, reinterpret_cast<uintptr_t>(out), &epilogue);
      launch.epilogue = epilogue;
      launch.most_values = static_cast<uint32_t>(decoder->matrix ? 0x7fffffff : output->num_values);
      launch.out = out;
      launch.status = decoder->status.on_device();
      check(launch_decode(part.plan, launch, on), "starting the kernel");
    }
    return TK_OK;
  });
}

int32_t tk_cuda_decoded(const tk_cuda_decoder* decoder) { return decoder ? decoder->status.read() : TK_ERR_ARGUMENT; }

int32_t tk_cuda_describe(const tk_cuda_decoder* decoder, tk_plan_info* info, int64_t* blob_bytes,
                         int64_t* image_bytes) {
  if (!decoder || !info || !blob_bytes || !image_bytes) return TK_ERR_ARGUMENT;
  *info = describe(decoder->parts.front().plan);
  *blob_bytes = static_cast<int64_t>(decoder->blob->bytes());
  *image_bytes = 0;
  for (const auto& part : decoder->parts) *image_bytes += static_cast<int64_t>(part.image->bytes());
  return TK_OK;
}
