// The device's program on the host. SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_EMULATE_H
#define TOOLKIT_CUDA_EMULATE_H

#include "decode_plan.h"

namespace toolkit::cuda {

// Runs every thread block of a launch, one warp after the other, then puts the exceptions in their places; all memory
// is the host's.
void run_on_host(const DecodePlan& plan, const DeviceLimits& limits, const DecodeLaunch& launch);

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_EMULATE_H
