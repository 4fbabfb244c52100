// The ops that decode and run, on the CPU. SPDX-License-Identifier: Apache-2.0
#include "ort_packed.h"
#include "ort_products.h"
#include "ort_weights.h"

namespace toolkit::ort {
namespace {

// Memory of the session's arena, for the time of one product.
class HostScratch {
 public:
  template <class Weight>
  HostScratch(const KernelInfo& /*info*/, const Weight& /*weight*/) {
    OrtMemoryInfo* made = nullptr;
    check(CreateCpuMemoryInfo::call(api(), kArena, kDefaultMemory, &made));
    memory_.reset(made);
  }

  template <class Weight, class Use>
  void with(const KernelContext& context, const Weight& weight, ElementType type, Use use) const {
    OrtAllocator* raw_allocator = nullptr;
    check(KernelContextAllocator::call(api(), static_cast<const OrtKernelContext*>(context.get()),
                                       static_cast<const OrtMemoryInfo*>(memory_.get()), &raw_allocator));
    const std::unique_ptr<OrtAllocator, AllocatorRelease> allocator(raw_allocator);
    const Shape& shape = weight.shape();
    OrtValue* raw_value = nullptr;
    check(CreateTensorAsValue::call(api(), raw_allocator, shape.data(), shape.size(), static_cast<int>(type),
                                    &raw_value));
    const std::unique_ptr<OrtValue, ValueRelease> value(raw_value);
    void* data = nullptr;
    check(GetTensorMutableData::call(api(), raw_value, &data));
    weight.write(context, data);
    use(raw_value);
  }

 private:
  static constexpr int kArena = 1;  // OrtArenaAllocator
  struct MemoryRelease {
    void operator()(OrtMemoryInfo* memory) const { ReleaseMemoryInfo::call(api(), memory); }
  };
  struct AllocatorRelease {
    void operator()(OrtAllocator* allocator) const { ReleaseAllocator::call(api(), allocator); }
  };
  struct ValueRelease {
    void operator()(OrtValue* value) const { ReleaseValue::call(api(), value); }
  };

  std::unique_ptr<OrtMemoryInfo, MemoryRelease> memory_;
};

template <bool kCodebook>
class HostPackedWeight : public PackedWeight<kCodebook> {
 public:
  HostPackedWeight(const KernelInfo& info, size_t first, int threads)
      : PackedWeight<kCodebook>(info, first), threads_(threads) {}
  void write(const KernelContext& context, void* out) const {
    const tk_unpacking unpacking = this->describe(this->tables(context), out);
    check_codec(tk_unpack_weight(&unpacking, threads_), "unpacking a weight");
  }

 private:
  int threads_;
};

}  // namespace

void add_product_ops(OpList& ops, int threads) {
  add_products<DequantizedWeight, LookedUpWeight, HostScratch>(ops, threads, Provider::kCpu);
  add_packed_products<HostPackedWeight<false>, HostPackedWeight<true>, HostScratch>(ops, threads, Provider::kCpu);
}

}  // namespace toolkit::ort
