// Device memory that frees itself, and CUDA's errors as exceptions.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_DEVICE_MEMORY_H
#define TOOLKIT_CUDA_DEVICE_MEMORY_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "codec_api.h"

namespace toolkit::cuda {

struct CudaError : std::runtime_error {
  CudaError(cudaError_t error, const std::string& what)
      : std::runtime_error(what + ": " + cudaGetErrorString(error)), code(error) {}
  cudaError_t code;
};

// Throws where a call failed; `what` says what was tried.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // else the next launch would report it again
  throw CudaError(error, what);
}

inline tk_status status_of(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return TK_OK;
    case cudaErrorMemoryAllocation:
      return TK_ERR_DEVICE_MEMORY;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCallRequiresNewerDriver:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorStubLibrary:
    case cudaErrorInitializationError:
      return TK_ERR_NO_DEVICE;
    default:
      return TK_ERR_DEVICE;
  }
}

// The status of a call, and its text for tk_cuda_problem where it failed.
tk_status remember(cudaError_t error, const char* what);

// Makes a device the current one, and the one before again at the end.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    check(cudaGetDevice(&before_), "asking for the current device");
    check(cudaSetDevice(device), "choosing the device");
  }
  ~DeviceScope() { cudaSetDevice(before_); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
};

// Copies to the device and waits for the end: of memory that is not pinned cudaMemcpy may return before that, and
// streams that do not block would not wait for it.
inline void upload(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copying to the device");
  check(cudaStreamSynchronize(nullptr), "copying to the device");
}

class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t bytes) : bytes_(bytes) { check(cudaMalloc(&data_, bytes ? bytes : 1), "allocating"); }
  DeviceBuffer(const void* from, size_t bytes) : DeviceBuffer(bytes) { upload(data_, from, bytes); }
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_DEVICE_MEMORY_H
