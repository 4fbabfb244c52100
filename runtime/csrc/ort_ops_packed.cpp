// The ops MatMulPacked and MatMulPackedCodebook on the CPU: products with packed weights.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/packed_weights.h"
#include "half_float.h"
#include "ort_host_scratch.h"
#include "ort_packed_matmul.h"
#include "threads.h"

namespace toolkit::ort {
namespace {

template <bool kCodebook>
class MultiplyPacked {
 public:
  explicit MultiplyPacked(int threads) : threads_(threads) {}

  void operator()(const tk_packed& product, const KernelContext& /*context*/) const {
    const auto* const halves = static_cast<const uint16_t*>(product.x);
    std::vector<float> x(static_cast<size_t>(product.batch * product.inputs));
    for (size_t i = 0; i < x.size(); ++i) x[i] = float_from_half(halves[i]);
    parallel_for(product.outputs, threads_,
                 [&](int64_t begin, int64_t end) { multiply(product, x.data(), begin, end); });
  }

 private:
  static void multiply(const tk_packed& p, const float* x, int64_t begin, int64_t end) {
    std::vector<uint8_t> fields(static_cast<size_t>(p.inputs));
    std::vector<float> weights(fields.size());
    const auto half = [](const void* from, int64_t at) {
      return float_from_half(static_cast<const uint16_t*>(from)[at]);
    };
    for (int64_t n = begin; n < end; ++n) {
      cuda::unpack_output(static_cast<const uint32_t*>(p.packed), n, p.inputs, p.bits, fields.data());
      for (int64_t first = 0; first < p.inputs; first += p.group_inputs) {
        const int64_t at = first / p.group_inputs * p.outputs + n, last = std::min(p.inputs, first + p.group_inputs);
        const float scale = half(p.scales, at), zero = kCodebook ? 0 : half(p.zeros, at);
        for (int64_t k = first; k < last; ++k) {
          const auto field = fields[static_cast<size_t>(k)];
          weights[static_cast<size_t>(k)] =
              (kCodebook ? half(p.codebook, field) : static_cast<float>(field) - zero) * scale;
        }
      }
      for (int64_t row = 0; row < p.batch; ++row) {
        float sum = 0;
        for (int64_t k = 0; k < p.inputs; ++k) sum += weights[static_cast<size_t>(k)] * x[row * p.inputs + k];
        static_cast<uint16_t*>(p.out)[row * p.outputs + n] = half_from_float(sum);
      }
    }
  }

  int threads_;
};

template <bool kCodebook>
using HostMatMulPacked = MatMulPacked<kCodebook, HostPackedWeight<kCodebook>, HostScratch, MultiplyPacked<kCodebook>>;

}  // namespace

void add_packed_ops(OpList& ops, int threads) {
  ops.push_back(make_op<HostMatMulPacked<false>>({"MatMulPacked", packed_inputs(), kFloat16}, threads));
  ops.push_back(make_op<HostMatMulPacked<true>>({"MatMulPackedCodebook", packed_inputs(), kFloat16}, threads));
}

}  // namespace toolkit::ort
