// Where the CPU's kernels decode and unpack weights to. SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_HOST_SCRATCH_H
#define TOOLKIT_ORT_HOST_SCRATCH_H

#include "ort_packed.h"

namespace toolkit::ort {

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
    const ValuePointer value(raw_value);
    void* data = nullptr;
    check(GetTensorMutableData::call(api(), raw_value, &data));
    weight.write(context, data);
    use(raw_value);
  }

  // A tensor in memory of the caller's.
  ValuePointer view(void* data, const Shape& shape, ElementType type) const {
    return view_of_memory(memory_.get(), data, shape, type);
  }

 private:
  static constexpr int kArena = 1;  // OrtArenaAllocator
  struct MemoryRelease {
    void operator()(OrtMemoryInfo* memory) const { ReleaseMemoryInfo::call(api(), memory); }
  };
  struct AllocatorRelease {
    void operator()(OrtAllocator* allocator) const { ReleaseAllocator::call(api(), allocator); }
  };

  std::unique_ptr<OrtMemoryInfo, MemoryRelease> memory_;
};

template <bool kCodebook>
class HostPackedWeight : public PackedWeight<kCodebook> {
 public:
  HostPackedWeight(const KernelInfo& info, size_t first, int threads)
      : HostPackedWeight(info, first, threads, info.integers("shape")) {}
  HostPackedWeight(const KernelInfo& info, size_t first, int threads, Shape shape)
      : PackedWeight<kCodebook>(info, first, std::move(shape)), threads_(threads) {}
  void write(const KernelContext& context, void* out) const {
    const tk_unpacking unpacking = this->describe(this->tables(context), out);
    check_codec(tk_unpack_weight(&unpacking, threads_), "unpacking a weight");
  }

 private:
  int threads_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_HOST_SCRATCH_H
