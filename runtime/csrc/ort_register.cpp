// The entry point that ONNX Runtime calls when the library is registered with session options.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "codec_api.h"
#include "ort_kernel.h"

namespace toolkit::ort {
namespace {

constexpr const char* kDomain = "toolkit";
// Session configuration entry: the number of threads that a decoding op uses; 0 or absent: one per core.
constexpr const char* kThreadsKey = "toolkit.threads";
constexpr int kMaxThreads = 1024;

int wanted_threads(const OrtSessionOptions* options) {
  int present = 0;
  check(HasSessionConfigEntry::call(api(), options, kThreadsKey, &present));
  if (present == 0) return 0;
  char text[32] = {};
  size_t size = sizeof text;
  check(GetSessionConfigEntry::call(api(), options, kThreadsKey, text, &size));
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < 0)
    throw std::runtime_error("session configuration entry toolkit.threads is '" + std::string(text) +
                             "', expected a count of threads");
  return static_cast<int>(std::min<long>(value, kMaxThreads));
}

OrtCustomOpDomain* make_domain(int threads) {
  OpList ops;
  add_wide_ops(ops, threads);
  add_fused_ops(ops, threads);
  add_small_ops(ops, threads);
  add_take_ops(ops, threads);
  add_join_ops(ops, threads);
  add_packed_ops(ops, threads);
  add_product_ops(ops, threads);
#if defined(TOOLKIT_HAS_CUDA)
  add_cuda_ops(ops, threads);
  add_cuda_product_ops(ops, threads);
#endif
  OrtCustomOpDomain* domain = nullptr;
  check(CreateCustomOpDomain::call(api(), kDomain, &domain));
  for (std::unique_ptr<Op>& op : ops) {
    OrtStatus* status = CustomOpDomainAdd::call(api(), domain, op.get());
    if (status != nullptr) ReleaseCustomOpDomain::call(api(), domain);
    check(status);
  }
  // Sessions refer to domain and ops for as long as they live, and no call tells when the last one is gone: both stay
  // until the process ends. There is one set per count of threads.
  for (std::unique_ptr<Op>& op : ops) op.release();
  return domain;
}

OrtCustomOpDomain* domain_for(int threads) {
  static std::mutex mutex;
  static std::map<int, OrtCustomOpDomain*> domains;
  const std::lock_guard<std::mutex> lock(mutex);
  OrtCustomOpDomain*& domain = domains[threads];
  if (domain == nullptr) domain = make_domain(threads);
  return domain;
}

}  // namespace
}  // namespace toolkit::ort

extern "C" TK_API OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace toolkit::ort;
  const OrtApi* table = base->GetApi(kApiVersion);
  if (table == nullptr) {
    // Version 1 has the slot that makes a status, and every release hands it out.
    const OrtApi* oldest = base->GetApi(1);
    if (oldest == nullptr) return nullptr;
    char text[160];
    std::snprintf(text, sizeof text, "toolkit: the op library needs ONNX Runtime %s or newer, this is %s",
                  kFirstRelease, base->GetVersionString());
    return CreateStatus::call(oldest, kFail, text);
  }
  set_api(table, base);
  return guarded([&] { check(AddCustomOpDomain::call(api(), options, domain_for(wanted_threads(options)))); });
}
