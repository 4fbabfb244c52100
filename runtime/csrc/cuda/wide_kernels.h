// Launches of the wide decoder's kernels.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_WIDE_KERNELS_H
#define TOOLKIT_CUDA_WIDE_KERNELS_H

#include <cuda_runtime_api.h>

#include "decode_plan.h"

namespace toolkit::cuda {

// Lets the plan's kernel take as much shared memory as the current device gives a thread block; before the first
// launch. All plans of a kernel share this setting, so it must not be what one of them needs.
cudaError_t prepare_decode(const DecodePlan& plan, const DeviceLimits& limits);

// Decodes the parts of a launch on the stream: the blocks, then the exceptions. Returns at once.
cudaError_t launch_decode(const DecodePlan& plan, const DeviceLimits& limits, const DecodeLaunch& launch,
                          cudaStream_t stream);

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WIDE_KERNELS_H
