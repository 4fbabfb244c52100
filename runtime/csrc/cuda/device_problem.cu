// What went wrong on a device: exceptions as statuses, with a text for tk_cuda_problem.
// SPDX-License-Identifier: Apache-2.0
#include <new>
#include <string>

#include "cuda_api.h"
#include "device_memory.h"
#include "device_problem.h"

namespace toolkit::cuda {
namespace {

thread_local std::string problem;

}  // namespace

tk_status status_of_exception() {
  try {
    throw;
  } catch (const CudaError& error) {
    problem = error.what();
    return status_of(error.code);
  } catch (const std::bad_alloc&) {
    problem = "out of memory";
    return TK_ERR_MEMORY;
  } catch (const std::exception& error) {
    problem = error.what();
    return TK_ERR_ARGUMENT;
  } catch (...) {
    problem = "unknown error";
    return TK_ERR_ARGUMENT;
  }
}

tk_status remember(cudaError_t error, const char* what) {
  if (error != cudaSuccess) problem = std::string(what) + ": " + cudaGetErrorString(error);
  return status_of(error);
}

}  // namespace toolkit::cuda

const char* tk_cuda_problem(void) { return toolkit::cuda::problem.c_str(); }
