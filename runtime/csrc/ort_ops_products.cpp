// The ops that decode and run, on the CPU. SPDX-License-Identifier: Apache-2.0
#include "ort_host_scratch.h"
#include "ort_products.h"
#include "ort_weights.h"

namespace toolkit::ort {

void add_product_ops(OpList& ops, int threads) {
  add_products<DequantizedWeight, LookedUpWeight, HostScratch>(ops, threads, Provider::kCpu);
  add_packed_products<HostPackedWeight<false>, HostPackedWeight<true>, HostScratch>(ops, threads, Provider::kCpu);
}

}  // namespace toolkit::ort
