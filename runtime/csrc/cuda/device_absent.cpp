// The C API of the GPU in a library that was built without CUDA: every function says so.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "cuda_api.h"

namespace {
constexpr const char* kProblem = "the op library was built without CUDA";
}

const char* tk_cuda_problem(void) { return kProblem; }

int32_t tk_cuda_get_info(int32_t /*device*/, tk_cuda_info* info) {
  if (!info) return TK_ERR_ARGUMENT;
  *info = tk_cuda_info{};
  std::snprintf(info->problem, sizeof info->problem, "%s", kProblem);
  return TK_ERR_NO_DEVICE;
}

int32_t tk_cuda_open(const tk_wide_reader* /*reader*/, int64_t /*tensor*/, int32_t /*device*/, int32_t /*layout*/,
                     tk_cuda_decoder** /*decoder*/) {
  return TK_ERR_NO_DEVICE;
}

void tk_cuda_close(tk_cuda_decoder* /*decoder*/) {}

int32_t tk_cuda_decode(const tk_cuda_decoder* /*decoder*/, const tk_output* /*output*/, void* /*out*/,
                       int64_t /*out_bytes*/, void* /*stream*/) {
  return TK_ERR_NO_DEVICE;
}

int32_t tk_cuda_decode_all(const tk_cuda_request* /*requests*/, int64_t /*count*/, void* /*stream*/) {
  return TK_ERR_NO_DEVICE;
}

int32_t tk_cuda_verify(const tk_cuda_decoder* /*decoder*/) { return TK_ERR_NO_DEVICE; }

int32_t tk_cuda_decoded(const tk_cuda_decoder* /*decoder*/) { return TK_ERR_NO_DEVICE; }

int32_t tk_cuda_allocate(int32_t /*device*/, int64_t /*bytes*/, void** /*memory*/) { return TK_ERR_NO_DEVICE; }

void tk_cuda_free(int32_t /*device*/, void* /*memory*/) {}

int32_t tk_cuda_upload(int32_t /*device*/, void* /*to*/, const void* /*from*/, int64_t /*bytes*/) {
  return TK_ERR_NO_DEVICE;
}

int32_t tk_cuda_wait(int32_t /*device*/, void* /*stream*/) { return TK_ERR_NO_DEVICE; }

int32_t tk_cuda_describe(const tk_cuda_decoder* /*decoder*/, tk_plan_info* /*info*/, int64_t* /*blob_bytes*/,
                         int64_t* /*image_bytes*/) {
  return TK_ERR_NO_DEVICE;
}

int32_t tk_cuda_unpack_weight(const tk_unpacking* /*unpacking*/, void* /*stream*/) { return TK_ERR_NO_DEVICE; }

int32_t tk_cuda_packed(const tk_packed* /*product*/, void* /*stream*/) { return TK_ERR_NO_DEVICE; }
