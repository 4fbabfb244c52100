// What went wrong on a device: exceptions as statuses, with a text for tk_cuda_problem.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_DEVICE_PROBLEM_H
#define TOOLKIT_CUDA_DEVICE_PROBLEM_H

#include "codec_api.h"

namespace toolkit::cuda {

// The status of the exception that is being handled; remembers what it says.
tk_status status_of_exception();

// Runs f, which returns a status or throws.
template <class F>
int32_t guarded_on_device(F f) {
  try {
    return f();
  } catch (...) {
    return status_of_exception();
  }
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_DEVICE_PROBLEM_H
