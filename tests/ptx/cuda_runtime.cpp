// A CUDA runtime whose device is a PTX machine: every call goes to functions that Python gives (cuda_runtime.py).
// SPDX-License-Identifier: Apache-2.0
//
// Host code that nvcc compiled launches kernels through __cudaPushCallConfiguration, the stub of the kernel, and
// cudaLaunchKernel, and has said the kernels' names to __cudaRegisterFunction before.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

struct Device {
  void* (*allocate)(size_t bytes);  // null: no memory is left
  void (*free)(void* memory);
  int (*copy)(void* to, const void* from, size_t bytes, int kind);
  int (*set)(void* memory, int value, size_t bytes);
  int (*attribute)(int attribute);
  int (*launch)(const char* kernel, const unsigned* shape, size_t shared_bytes, void** arguments);
  int (*allow_shared)(const char* kernel, int bytes);
};

namespace {

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};

Device device{};
std::map<const void*, std::string>& kernels() {
  static std::map<const void*, std::string> names;
  return names;
}
thread_local std::vector<Configuration> configurations;
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t done(int error) {
  last_error = error == 0 ? last_error : static_cast<cudaError_t>(error);
  return static_cast<cudaError_t>(error);
}

cudaError_t take(void** memory, size_t bytes) {
  *memory = device.allocate(bytes);
  return done(*memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation);
}

const char* name_of(const void* function) {
  const auto found = kernels().find(function);
  return found == kernels().end() ? "" : found->second.c_str();
}

}  // namespace

extern "C" {
__attribute__((visibility("default"))) void ptx_set_device(const Device* from) { device = *from; }

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  kernels()[function] = name;
}
char __cudaInitModule(void**) { return 1; }
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream) {
  configurations.push_back({grid, block, shared_bytes, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  const Configuration c = configurations.back();
  configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared_bytes = c.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}
// Since CUDA 13 stubs ask for a handle of the kernel and launch that.
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t) {
  const unsigned shape[6] = {grid.x, grid.y, grid.z, block.x, block.y, block.z};
  return done(device.launch(name_of(function), shape, shared_bytes, arguments));
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                               cudaStream_t stream) {
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, arguments, shared_bytes, stream);
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return done(cudaErrorInvalidValue);
  return done(device.allow_shared(name_of(function), value));
}

cudaError_t cudaMalloc(void** memory, size_t bytes) { return take(memory, bytes); }
cudaError_t cudaFree(void* memory) {
  if (memory != nullptr) device.free(memory);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  const cudaError_t error = take(memory, bytes);
  if (error == cudaSuccess) device.set(*memory, 0, bytes);
  return error;
}
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
cudaError_t cudaHostGetDevicePointer(void** of_device, void* host, unsigned) {
  *of_device = host;
  return cudaSuccess;
}
cudaError_t cudaMemset(void* memory, int value, size_t bytes) { return done(device.set(memory, value, bytes)); }
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(memory, value, bytes);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return done(device.copy(to, from, bytes, kind));
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
// Row by row, inside of the device.
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t) {
  if (width > to_pitch || width > from_pitch) return done(cudaErrorInvalidPitchValue);
  for (size_t row = 0; row < height; ++row) {
    char* const target = static_cast<char*>(to) + row * to_pitch;
    const char* const source = static_cast<const char*>(from) + row * from_pitch;
    if (const cudaError_t error = cudaMemcpy(target, source, width, kind)) return error;
  }
  return cudaSuccess;
}
// Work is done when it is put on a stream: what orders streams has nothing to do here.
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  static uintptr_t next = 1 << 20;
  *stream = reinterpret_cast<cudaStream_t>(next++);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(event), 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGetDevice(int* number) {
  *number = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int number) { return done(number == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = device.attribute(attribute);
  return done(*value >= 0 ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = cudaDeviceProp{};
  std::strcpy(properties->name, "PTX machine");
  properties->multiProcessorCount = device.attribute(cudaDevAttrMultiProcessorCount);
  properties->sharedMemPerBlockOptin = static_cast<size_t>(device.attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *free_bytes = *total_bytes = 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }
cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "an error"; }
}
