// Launches of the wide decoder's kernels.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_WIDE_KERNELS_H
#define TOOLKIT_CUDA_WIDE_KERNELS_H

#include <cuda_runtime_api.h>

#include "decode_plan.h"

namespace toolkit::cuda {

// Lets the plan's kernel take its shared memory on the current device; once before the first launch.
cudaError_t prepare_decode(const DecodePlan& plan);

// Decodes on the stream: the blocks, then the exceptions. Returns at once.
cudaError_t launch_decode(const DecodePlan& plan, const DecodeLaunch& launch, cudaStream_t stream);

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WIDE_KERNELS_H
