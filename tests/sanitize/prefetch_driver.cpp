// Runs runtime/csrc/cuda/prefetch.cu on a CUDA runtime that only writes down what it is asked for.
// SPDX-License-Identifier: Apache-2.0
//
//   prefetch_driver PLACES 0 BYTES  reads uses "place stream fails" from standard input, writes the calls; groups are
//   of
//                                   at most BYTES
//   prefetch_driver PLACES THREADS  each thread uses all places on a stream of its own, many times; writes nothing
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <thread>

#include "prefetch.h"

namespace {

std::atomic<uintptr_t> next_handle{1000}, next_memory{1};
bool silent = false;

uintptr_t number(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

void tell(const char* what, uintptr_t stream, uintptr_t index, int64_t value) {
  if (!silent) std::printf("%s %lu %lu %ld\n", what, stream, index, static_cast<long>(value));
}

}  // namespace

extern "C" {
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(next_handle++);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(next_handle++);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  tell("record", number(stream), number(event), 0);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  tell("wait", number(stream), number(event), 0);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an error"; }
}

void toolkit::cuda::DecodeBatch::run(void* stream) const {
  for (const Tensor& each : tensors_)
    tell("decode", number(stream), number(each.out), static_cast<int64_t>(number(each.decoder)) - 1);
  tell("start", number(stream), 0, static_cast<int64_t>(tensors_.size()));
}

namespace {

// A decoder stands for its place.
toolkit::cuda::AddToBatch decoder_of(int64_t place) {
  static const std::string name = "a weight";
  return [place](toolkit::cuda::DecodeBatch& batch, void* out) {
    batch.add(name, reinterpret_cast<const tk_cuda_decoder*>(static_cast<uintptr_t>(place + 1)), {}, out, 0);
  };
}

// Of one size, so that each buffer is taken once; where nothing is told, of several.
int64_t bytes_of(int64_t place) { return silent ? 100 + place : 100; }

toolkit::cuda::DeviceMemory device_memory() {
  return {[](int64_t bytes) {
            void* const made = reinterpret_cast<void*>(next_memory++ << 30);
            tell("take", 0, number(made), bytes);
            return made;
          },
          [](void*) {}};
}

void use(toolkit::cuda::Prefetch& prefetch, int64_t place, uintptr_t stream, bool fails) {
  const auto on = reinterpret_cast<cudaStream_t>(stream);
  try {
    prefetch.run(place, bytes_of(place), on, decoder_of(place), [&](void* weight) {
      tell("use", stream, number(weight), place);
      if (fails) throw std::runtime_error("as asked");
    });
  } catch (const std::runtime_error&) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const int64_t places = std::atoll(argv[1]);
  const int num_threads = std::atoi(argv[2]);
  silent = num_threads > 0;
  const auto prefetch = toolkit::cuda::Prefetch::of_session(7);
  if (prefetch != toolkit::cuda::Prefetch::of_session(7)) return 3;
  for (int64_t place = 0; place < places; ++place) {
    if (prefetch->add(place, bytes_of(place), decoder_of(place), device_memory()) != place) return 4;
    if (prefetch->add(place, 1, decoder_of(place), device_memory()) != toolkit::cuda::kNoPlace) return 5;
  }
  prefetch->limit_groups(argc > 3 ? std::atoll(argv[3]) : 0);
  if (silent) {
    std::vector<std::thread> threads;
    for (int n = 0; n < num_threads; ++n) {
      threads.emplace_back([&, n] {
        for (int run = 0; run < 300; ++run) {
          for (int64_t place = 0; place < places; ++place)
            use(*prefetch, place, static_cast<uintptr_t>(n + 1), run % 7 == 3 && place == 1);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return 0;
  }
  int64_t place = 0;
  uintptr_t stream = 0;
  int fails = 0;
  for (int number = 0; std::cin >> place >> stream >> fails; ++number) {
    std::printf("turn %d 0 0\n", number);
    use(*prefetch, place, stream, fails != 0);
  }
}
