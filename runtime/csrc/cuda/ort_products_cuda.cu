// The ops that decode and run, for ONNX Runtime's CUDA provider. SPDX-License-Identifier: Apache-2.0
#include "device_weights.h"
#include "ort_products.h"

namespace toolkit::ort {
namespace {

// Memory of the session's arena on the device, for the time of one product. It belongs to the run's stream: what a run
// gives back there is used by work that follows on the same stream, or by another stream once it has waited.
class DeviceScratch {
 public:
  template <class Weight>
  DeviceScratch(const KernelInfo& info, const Weight& /*weight*/) {
    if (!has_version(kScratchVersion))
      throw std::runtime_error("scratch memory on CUDA needs ONNX Runtime 1.18 or newer");
    OrtAllocator* allocator = nullptr;
    check(KernelInfoAllocator::call(api(), info.get(), static_cast<int>(kDefaultMemory), &allocator));
    allocator_.reset(allocator);
    check(AllocatorGetInfo::call(api(), static_cast<const OrtAllocator*>(allocator), &memory_));
  }

  template <class Weight, class Use>
  void with(const KernelContext& context, const Weight& weight, ElementType type, Use use) const {
    const Shape& shape = weight.shape();
    const auto bytes = static_cast<size_t>(element_count(shape) * float_bytes(type));
    const Buffer buffer(*this, context, bytes);
    weight.write(context, buffer.data);
    OrtValue* raw = nullptr;
    check(CreateTensorWithData::call(api(), memory_, buffer.data, bytes, shape.data(), shape.size(),
                                     static_cast<int>(type), &raw));
    const std::unique_ptr<OrtValue, ValueRelease> value(raw);
    use(raw);
  }

 private:
  struct AllocatorRelease {
    void operator()(OrtAllocator* allocator) const { ReleaseAllocator::call(api(), allocator); }
  };
  struct ValueRelease {
    void operator()(OrtValue* value) const { ReleaseValue::call(api(), value); }
  };
  struct Buffer {
    Buffer(const DeviceScratch& scratch, const KernelContext& context, size_t bytes) : of(scratch) {
      check(KernelContextScratch::call(api(), static_cast<const OrtKernelContext*>(context.get()), of.memory_, bytes,
                                       &data));
      if (data == nullptr) throw std::bad_alloc();
    }
    ~Buffer() {
      OrtStatus* const status = AllocatorFree::call(api(), of.allocator_.get(), data);
      if (status != nullptr) ReleaseStatus::call(api(), status);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    const DeviceScratch& of;
    void* data = nullptr;
  };

  std::unique_ptr<OrtAllocator, AllocatorRelease> allocator_;
  const OrtMemoryInfo* memory_ = nullptr;  // the allocator's
};

}  // namespace

void add_cuda_product_ops(OpList& ops, int threads) {
  add_products<DeviceDequantizedWeight, DeviceLookedUpWeight, DeviceScratch>(ops, threads, Provider::kCuda);
}

}  // namespace toolkit::ort
