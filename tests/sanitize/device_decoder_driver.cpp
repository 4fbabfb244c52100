// Runs runtime/csrc/cuda/device_decoder.cu on a CUDA runtime whose device is the host: kernels run at once, lane by
// lane, but copies from the host only when the stream is waited for, as those of pageable memory may.
// SPDX-License-Identifier: Apache-2.0
//
//   device_decoder_driver BLOB...   writes, for all tensors at once (-2), the matrix (-1) and each tensor of a blob,
//   "BLOB tensor status bytes-equal"
//
// Each call of opening a decoder is made to fail once. What must not be ends the process with a message.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "emulate.h"
#include "wide_kernels.h"

namespace {

constexpr int kSharedBytes = 232448;

std::vector<std::function<void()>> under_way;  // on the legacy stream
int taken = 0, calls = 0, failing_call = 0;    // allocations; calls that may fail, and which of them does
int launches = 0;
bool decoding = false;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

// A call that allocates, waits or may otherwise not be captured in a graph.
cudaError_t outside_of_runs(const char* name) {
  if (decoding) fail(std::string(name) + " while decoding");
  return ++calls == failing_call ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t take(void** memory, size_t bytes) {
  if (const cudaError_t error = outside_of_runs("an allocation")) return error;
  *memory = ::operator new(bytes, std::align_val_t(256));
  ++taken;
  return cudaSuccess;
}

cudaError_t give_back(void* memory) {
  if (decoding) fail("memory is freed while decoding");
  if (memory == nullptr) return cudaSuccess;
  ::operator delete(memory, std::align_val_t(256));
  --taken;
  return cudaSuccess;
}

}  // namespace

extern "C" {
cudaError_t cudaMalloc(void** memory, size_t bytes) { return take(memory, bytes); }
cudaError_t cudaFree(void* memory) { return give_back(memory); }
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) { return take(memory, bytes); }
cudaError_t cudaFreeHost(void* memory) { return give_back(memory); }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return outside_of_runs("cudaHostGetDevicePointer");
}
cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  under_way.push_back([=] { std::memset(memory, value, bytes); });
  return outside_of_runs("cudaMemset");
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  const cudaError_t error = outside_of_runs("cudaMemcpy");
  if (error == cudaSuccess) under_way.push_back([=] { std::memcpy(to, from, bytes); });
  return error;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream != nullptr) fail("a stream of the caller's is waited for");
  for (const auto& work : under_way) work();
  under_way.clear();
  return outside_of_runs("cudaStreamSynchronize");
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 132 : 1024;
  if (attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin) *value = kSharedBytes;
  return outside_of_runs("cudaDeviceGetAttribute");
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an error"; }
}

namespace toolkit::cuda {

cudaError_t prepare_decode(const DecodePlan& plan, const DeviceLimits& limits) {
  // The last setting of a kernel holds for all plans that it is launched for.
  if (limits.shared_bytes != kSharedBytes || !plan.image.empty()) fail("shared memory");
  return outside_of_runs("cudaFuncSetAttribute");
}

cudaError_t launch_decode(const DecodePlan& plan, const DeviceLimits& limits, const DecodeLaunch& launch,
                          cudaStream_t stream) {
  if (!under_way.empty()) fail("a kernel starts before its memory is there");
  if (decoding == (stream == nullptr)) fail("a kernel is not on the stream that it belongs to");
  if (geometry_of(plan, limits, launch.num_blocks).shared_bytes > kSharedBytes) fail("shared memory");
  if (launch.num_parts < 1 || launch.num_parts > kMostParts) fail("parts");
  ++launches;
  run_on_host(plan, limits, launch);
  return cudaSuccess;
}

}  // namespace toolkit::cuda

namespace {

// A tensor, or with -1 the matrix, and what the host makes of it.
struct Wanted {
  Wanted(const tk_wide_reader* reader, int64_t tensor) : number(tensor) {
    tk_wide_info info{};
    tk_wide_get_info(reader, &info);
    const int64_t size = info.wide ? 2 : 1;
    output.inner = 1;
    if (tensor >= 0) {
      tk_wide_tensor_info of{};
      tk_wide_get_tensor(reader, tensor, &of);
      output.num_values = of.a * of.b * of.c;
      values.resize(static_cast<size_t>(output.num_values * size));
      tk_wide_decode_tensor(reader, tensor, values.data(), bytes(), 1, TK_ISA_AUTO);
    } else {
      values.resize(static_cast<size_t>(info.num_lanes * info.num_steps * size));
      tk_wide_decode_all(reader, values.data(), bytes(), 1, TK_ISA_AUTO);
    }
    found.resize(values.size(), 0x5a);
  }
  int64_t bytes() const { return static_cast<int64_t>(values.size()); }

  int64_t number;
  tk_output output{};
  std::vector<char> values, found;
};

const auto stream = reinterpret_cast<cudaStream_t>(static_cast<uintptr_t>(77));

void run(const char* name, const tk_wide_reader* reader, int64_t tensor) {
  Wanted wanted(reader, tensor);
  tk_cuda_decoder* decoder = nullptr;
  for (failing_call = 1;; ++failing_call) {
    calls = 0;
    const int32_t status = tk_cuda_open(reader, tensor, 0, -1, &decoder);
    if (status == TK_OK) break;
    if (status != TK_ERR_DEVICE_MEMORY || decoder != nullptr || taken != 0)
      fail("a failed call leaves something behind");
    under_way.clear();
  }
  if (failing_call <= 5) fail("no call has failed");
  failing_call = 0;
  decoding = true;
  const tk_output& output = wanted.output;
  if (tk_cuda_decode(decoder, &output, wanted.found.data(), wanted.bytes() + 1, stream) != TK_ERR_ARGUMENT)
    fail("a wrong size");
  for (int turn = 0; turn < 2; ++turn)
    if (tk_cuda_decode(decoder, &output, wanted.found.data(), wanted.bytes(), stream) != TK_OK) fail("decoding failed");
  const int32_t status = tk_cuda_decoded(decoder);
  std::printf("%s %ld %d %d\n", name, static_cast<long>(tensor), status, wanted.values == wanted.found);
  decoding = false;
  if (tk_cuda_verify(decoder) != status) fail("a blob is verified to another end");
  tk_cuda_close(decoder);
  if (taken != 0) fail("memory is left");
}

// All tensors at once, more often than a launch has room for, and the matrix among them.
void run_together(const char* name, const tk_wide_reader* reader, int64_t num_tensors) {
  const int64_t turns = 2 * toolkit::cuda::kMostParts / num_tensors + 1;
  std::vector<Wanted> wanted;
  std::vector<tk_cuda_decoder*> decoders;
  std::vector<tk_cuda_request> requests;
  for (int64_t turn = 0; turn < turns; ++turn)
    for (int64_t tensor = -1; tensor < num_tensors; ++tensor)
      if (turn == 0 || tensor >= 0) wanted.emplace_back(reader, tensor);
  for (Wanted& each : wanted) {
    tk_cuda_decoder* decoder = nullptr;
    if (tk_cuda_open(reader, each.number, 0, -1, &decoder) != TK_OK) fail("opening failed");
    decoders.push_back(decoder);
    requests.push_back({decoder, &each.output, each.found.data(), each.bytes()});
  }
  decoding = true;
  launches = 0;
  const auto count = static_cast<int64_t>(requests.size());
  if (tk_cuda_decode_all(requests.data(), count, stream) != TK_OK) fail("decoding together failed");
  if (launches >= count) fail("tensors are decoded one by one");
  bool equal = true;
  int32_t status = TK_OK;
  for (const Wanted& each : wanted) equal = equal && each.values == each.found;
  for (const tk_cuda_decoder* decoder : decoders)
    if (tk_cuda_decoded(decoder) != TK_OK) status = tk_cuda_decoded(decoder);
  std::printf("%s -2 %d %d\n", name, status, equal);
  decoding = false;
  requests[0].decoder = nullptr;
  if (tk_cuda_decode_all(requests.data(), count, stream) != TK_ERR_ARGUMENT) fail("a request without a decoder");
  for (tk_cuda_decoder* decoder : decoders) tk_cuda_close(decoder);
  if (taken != 0) fail("memory is left");
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(file)), {});
    std::vector<uint16_t> words(content.size() / 2);
    std::memcpy(words.data(), content.data(), words.size() * 2);
    tk_wide_reader* reader = nullptr;
    if (tk_wide_open(words.data(), static_cast<int64_t>(words.size()), &reader) != TK_OK) fail("a blob is refused");
    tk_wide_info info{};
    tk_wide_get_info(reader, &info);
    failing_call = 0;
    run_together(argv[i], reader, info.num_tensors);
    for (int64_t tensor = -1; tensor < info.num_tensors; ++tensor) run(argv[i], reader, tensor);
    tk_wide_close(reader);
  }
}
