// The ops that decode and run, for ONNX Runtime's CUDA provider. SPDX-License-Identifier: Apache-2.0
#include "device_weights.h"
#include "ort_packed_matmul.h"
#include "ort_products.h"
#include "prefetch.h"

namespace toolkit::ort {
namespace {

struct AllocatorRelease {
  void operator()(OrtAllocator* allocator) const { ReleaseAllocator::call(api(), allocator); }
};

// Memory of the session's arena on the device for decoded weights. Nodes of one session (attribute session) share it,
// and those that have a place among them (attribute place) are decoded ahead, in groups of at most ahead_bytes.
class DeviceScratch {
 public:
  template <class Weight>
  DeviceScratch(const KernelInfo& info, const Weight& weight) {
    if (!has_version(kAllocatorVersion))
      throw std::runtime_error("scratch memory on CUDA needs ONNX Runtime 1.18 or newer");
    OrtAllocator* made = nullptr;
    check(KernelInfoAllocator::call(api(), info.get(), static_cast<int>(kDefaultMemory), &made));
    const std::shared_ptr<OrtAllocator> allocator(made, AllocatorRelease());
    check(AllocatorGetInfo::call(api(), static_cast<const OrtAllocator*>(made), &memory_));
    allocator_ = allocator;
    const cuda::DeviceMemory memory{
        [allocator](int64_t bytes) {
          void* data = nullptr;
          check(AllocatorAlloc::call(api(), allocator.get(), static_cast<size_t>(bytes), &data));
          if (data == nullptr) throw std::bad_alloc();
          return data;
        },
        [allocator](void* data) {
          OrtStatus* const status = AllocatorFree::call(api(), allocator.get(), data);
          if (status != nullptr) ReleaseStatus::call(api(), status);
        }};
    const auto tables = weight.constant_tables();
    cuda::AddToBatch ahead;
    if (tables.table)
      ahead = [&weight, tables](cuda::DecodeBatch& batch, void* out) { weight.add_to(&batch, tables, out); };
    const int64_t session = info.integer("session", 0);
    prefetch_ = session == 0 ? std::make_shared<cuda::Prefetch>() : cuda::Prefetch::of_session(session);
    const int64_t bytes = element_count(weight.shape()) * float_bytes(info.input_type(0));
    const int64_t place = info.integer("place", cuda::kNoPlace);
    if (place != cuda::kNoPlace) prefetch_->limit_groups(info.integer("ahead_bytes", 0));
    place_ = prefetch_->add(place, bytes, ahead, memory);
  }
  ~DeviceScratch() { prefetch_->remove(place_); }
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;

  template <class Weight, class Use>
  void with(const KernelContext& context, const Weight& weight, ElementType type, Use use) const {
    const Shape& shape = weight.shape();
    const int64_t bytes = element_count(shape) * float_bytes(type);
    const auto tables = weight.tables(context);
    const auto decode = [&](cuda::DecodeBatch& batch, void* out) { weight.add_to(&batch, tables, out); };
    prefetch_->run(place_, bytes, static_cast<cudaStream_t>(context.stream()), decode,
                   [&](void* data) { use(view(data, shape, type).get()); });
  }

  // A tensor in memory of the device that is the caller's.
  ValuePointer view(void* data, const Shape& shape, ElementType type) const {
    return view_of_memory(memory_, data, shape, type);
  }

 private:
  int64_t place_ = cuda::kNoPlace;
  std::shared_ptr<OrtAllocator> allocator_;
  const OrtMemoryInfo* memory_ = nullptr;  // the allocator's
  std::shared_ptr<cuda::Prefetch> prefetch_;
};

// It can also be unpacked together with others, from constant tables.
template <bool kCodebook>
class DevicePackedWeight : public PackedWeight<kCodebook> {
 public:
  DevicePackedWeight(const KernelInfo& info, size_t first, int threads)
      : DevicePackedWeight(info, first, threads, info.integers("shape")) {}
  DevicePackedWeight(const KernelInfo& info, size_t first, int /*threads*/, Shape shape)
      : PackedWeight<kCodebook>(info, first, std::move(shape)),
        constant_(PackedWeight<kCodebook>::constant_tables(info)) {}
  const PackedTables& constant_tables() const { return constant_; }
  void add_to(cuda::DecodeBatch* batch, const PackedTables& tables, void* out) const {
    batch->add([unpacking = this->describe(tables, out)](void* stream) {
      check_device(tk_cuda_unpack_weight(&unpacking, stream), "unpacking a weight");
    });
  }

 private:
  PackedTables constant_;
};

struct MultiplyPacked {
  explicit MultiplyPacked(int /*threads*/) {}
  void operator()(const tk_packed& product, const KernelContext& context) const {
    check_device(tk_cuda_packed(&product, context.stream()), "multiplying");
  }
};

template <bool kCodebook>
using DeviceMatMulPacked = MatMulPacked<kCodebook, DevicePackedWeight<kCodebook>, DeviceScratch, MultiplyPacked>;

}  // namespace

void add_cuda_product_ops(OpList& ops, int threads) {
  add_products<DeviceScaledWeight, DeviceCodebookWeight, DeviceScratch>(ops, threads, Provider::kCuda);
  add_packed_products<DevicePackedWeight<false>, DevicePackedWeight<true>, DeviceScratch>(ops, threads,
                                                                                          Provider::kCuda);
  const auto packed = [](const char* name) { return Signature{name, packed_inputs(), kFloat16, Provider::kCuda}; };
  ops.push_back(make_op<DeviceMatMulPacked<false>>(packed("MatMulPacked"), threads));
  ops.push_back(make_op<DeviceMatMulPacked<true>>(packed("MatMulPackedCodebook"), threads));
}

}  // namespace toolkit::ort
