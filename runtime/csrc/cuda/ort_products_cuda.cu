// The ops that decode and run, for ONNX Runtime's CUDA provider. SPDX-License-Identifier: Apache-2.0
#include "device_weights.h"
#include "ort_products.h"
#include "prefetch.h"

namespace toolkit::ort {
namespace {

struct AllocatorRelease {
  void operator()(OrtAllocator* allocator) const { ReleaseAllocator::call(api(), allocator); }
};
using Allocator = std::shared_ptr<OrtAllocator>;

void give_back(const Allocator& allocator, void* data) {
  OrtStatus* const status = AllocatorFree::call(api(), allocator.get(), data);
  if (status != nullptr) ReleaseStatus::call(api(), status);
}

// Memory of the session's arena on the device for decoded weights: for the time of one product, or where the node has a
// place in its session (attributes session and place) for the time of a run, in two buffers that take turns, the next
// weight being decoded while this one is used. It belongs to the run's stream: what a run gives back there is used by
// work that follows on the same stream, or by another stream once it has waited.
class DeviceScratch {
 public:
  template <class Weight>
  DeviceScratch(const KernelInfo& info, const Weight& weight) : place_(info.integer("place", -1)) {
    if (!has_version(kScratchVersion))
      throw std::runtime_error("scratch memory on CUDA needs ONNX Runtime 1.18 or newer");
    OrtAllocator* made = nullptr;
    check(KernelInfoAllocator::call(api(), info.get(), static_cast<int>(kDefaultMemory), &made));
    allocator_ = Allocator(made, AllocatorRelease());
    check(AllocatorGetInfo::call(api(), static_cast<const OrtAllocator*>(made), &memory_));
    const int64_t session = info.integer("session", 0);
    if (session == 0 || place_ < 0) return;
    const WeightTables tables = weight.constant_tables();
    cuda::DecodeOn ahead;
    if (tables.table) ahead = [&weight, tables](void* stream, void* out) { weight.write_on(stream, tables, out); };
    const int64_t bytes = element_count(weight.shape()) * float_bytes(info.input_type(0));
    auto prefetch = cuda::Prefetch::of_session(session);
    if (prefetch->add(place_, bytes, ahead, [allocator = allocator_](void* data) { give_back(allocator, data); }))
      prefetch_ = std::move(prefetch);
  }
  ~DeviceScratch() {
    if (prefetch_ != nullptr) prefetch_->remove(place_);
  }
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;

  template <class Weight, class Use>
  void with(const KernelContext& context, const Weight& weight, ElementType type, Use use) const {
    const Shape& shape = weight.shape();
    const int64_t bytes = element_count(shape) * float_bytes(type);
    const auto use_data = [&](void* data) {
      OrtValue* raw = nullptr;
      check(CreateTensorWithData::call(api(), memory_, data, static_cast<size_t>(bytes), shape.data(), shape.size(),
                                       static_cast<int>(type), &raw));
      const std::unique_ptr<OrtValue, ValueRelease> value(raw);
      use(raw);
    };
    if (prefetch_ != nullptr) {
      const cuda::StreamMemory memory{[&](int64_t size) { return take(context, size); },
                                      [&](void* data) { give_back(allocator_, data); }};
      const WeightTables tables = weight.tables(context);
      const auto decode = [&](void* stream, void* out) { weight.write_on(stream, tables, out); };
      if (prefetch_->run(place_, static_cast<cudaStream_t>(context.stream()), memory, decode, use_data)) return;
    }
    void* const data = take(context, bytes);
    const auto release = [this](void* held) { give_back(allocator_, held); };
    const std::unique_ptr<void, decltype(release)> buffer(data, release);
    weight.write(context, data);
    use_data(data);
  }

 private:
  struct ValueRelease {
    void operator()(OrtValue* value) const { ReleaseValue::call(api(), value); }
  };
  void* take(const KernelContext& context, int64_t bytes) const {
    void* data = nullptr;
    check(KernelContextScratch::call(api(), static_cast<const OrtKernelContext*>(context.get()), memory_,
                                     static_cast<size_t>(bytes), &data));
    if (data == nullptr) throw std::bad_alloc();
    return data;
  }

  int64_t place_;
  Allocator allocator_;
  const OrtMemoryInfo* memory_ = nullptr;  // the allocator's
  std::shared_ptr<cuda::Prefetch> prefetch_;
};

}  // namespace

void add_cuda_product_ops(OpList& ops, int threads) {
  add_products<DeviceDequantizedWeight, DeviceLookedUpWeight, DeviceScratch>(ops, threads, Provider::kCuda);
}

}  // namespace toolkit::ort
