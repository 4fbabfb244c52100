// The C API of devices: what they are, and their memory. SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "cuda_api.h"
#include "device_memory.h"
#include "device_problem.h"

using namespace toolkit::cuda;

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
  return guarded_on_device([&]() -> int32_t {
    const DeviceScope scope(device);
    size_t free_bytes = 0, total_bytes = 0;
    if (cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes)) return refuse(error);
    info->free_bytes = static_cast<int64_t>(free_bytes);
    info->total_bytes = static_cast<int64_t>(total_bytes);
    return TK_OK;
  });
}

int32_t tk_cuda_allocate(int32_t device, int64_t bytes, void** memory) {
  if (!memory || bytes < 1) return TK_ERR_ARGUMENT;
  return guarded_on_device([&]() -> int32_t {
    const DeviceScope scope(device);
    check(cudaMalloc(memory, static_cast<size_t>(bytes)), "allocating");
    return TK_OK;
  });
}

void tk_cuda_free(int32_t device, void* memory) {
  guarded_on_device([&]() -> int32_t {
    const DeviceScope scope(device);
    cudaFree(memory);
    return TK_OK;
  });
}

int32_t tk_cuda_upload(int32_t device, void* to, const void* from, int64_t bytes) {
  if (!to || !from || bytes < 1) return TK_ERR_ARGUMENT;
  return guarded_on_device([&]() -> int32_t {
    const DeviceScope scope(device);
    upload(to, from, static_cast<size_t>(bytes));
    return TK_OK;
  });
}

int32_t tk_cuda_wait(int32_t device, void* stream) {
  return guarded_on_device([&]() -> int32_t {
    const DeviceScope scope(device);
    check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "waiting for the device");
    return TK_OK;
  });
}
