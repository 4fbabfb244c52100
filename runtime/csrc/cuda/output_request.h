// From the C API's description of an output to the epilogue of a launch, checked.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_OUTPUT_REQUEST_H
#define TOOLKIT_CUDA_OUTPUT_REQUEST_H

#include "cuda_api.h"
#include "decode_launch.h"

namespace toolkit::cuda {

// Bytes of a value; 0 for a kind that does not exist.
int64_t value_bytes(const tk_output& output, bool wide);

// TK_ERR_ARGUMENT where the description contradicts itself or does not cover num_values values.
tk_status make_epilogue(const tk_output& output, Epilogue* epilogue);

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_OUTPUT_REQUEST_H
