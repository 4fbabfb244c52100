// Weights that are decoded together on a stream of a device.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_DECODE_BATCH_H
#define TOOLKIT_CUDA_DECODE_BATCH_H

#include <functional>
#include <string>
#include <vector>

#include "cuda_api.h"

namespace toolkit::cuda {

class DecodeBatch {
 public:
  // A tensor of a blob; `name` is what errors say of it and must live until run().
  void add(const std::string& name, const tk_cuda_decoder* decoder, const tk_output& output, void* out,
           int64_t out_bytes) {
    tensors_.push_back({&name, decoder, output, out, out_bytes});
  }
  // A weight of another kind, which puts its own work on the stream.
  void add(std::function<void(void* stream)> other) { others_.push_back(std::move(other)); }
  // Puts all of it on the stream and returns at once. Throws where that fails.
  void run(void* stream) const;

 private:
  struct Tensor {
    const std::string* name;
    const tk_cuda_decoder* decoder;
    tk_output output;
    void* out;
    int64_t out_bytes;
  };
  std::vector<Tensor> tensors_;
  std::vector<std::function<void(void* stream)>> others_;
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_DECODE_BATCH_H
