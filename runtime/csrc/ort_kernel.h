// A thin, exception-free shell around the custom op ABI: a kernel class with a signature becomes an OrtCustomOp.
// SPDX-License-Identifier: Apache-2.0
//
// A kernel class K has
//   K(const KernelInfo&, int threads)          reads attributes and constant inputs; throws on a bad node or blob
//   void compute(KernelContext&) const         runs the op; throws on bad input
//   static void infer(ShapeContext&)           sets the output's type and shape where the attributes fix them
// Exceptions end in guarded(), which turns them into an OrtStatus; none crosses the C boundary.
#ifndef TOOLKIT_ORT_KERNEL_H
#define TOOLKIT_ORT_KERNEL_H

#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ort_abi.h"

namespace toolkit::ort {

// The API of the runtime that loaded this library; set once by RegisterCustomOps before any op can run.
const OrtApi* api();
void set_api(const OrtApi* table, const OrtApiBase* base);
// Whether that runtime has the slots of a version.
bool has_version(uint32_t version);

inline constexpr size_t kMaxRank = 32;

using Shape = std::vector<int64_t>;

// Releases a status and throws its text; does nothing on success.
void check(OrtStatus* status);

// Runs a callable and turns whatever it throws into a status.
template <typename Callable>
OrtStatus* guarded(Callable&& callable) noexcept {
  try {
    callable();
    return nullptr;
  } catch (const std::bad_alloc&) {
    return CreateStatus::call(api(), kFail, "toolkit: out of memory");
  } catch (const std::exception& error) {
    return CreateStatus::call(api(), kInvalidArgument, error.what());
  } catch (...) {
    return CreateStatus::call(api(), kFail, "toolkit: unknown error");
  }
}

// Number of elements; throws where a dimension is negative or the product overflows.
int64_t element_count(const Shape& shape);

struct TensorView {
  const OrtValue* value = nullptr;
  ElementType type = kUndefined;
  Shape shape;
  int64_t count = 0;
  const void* data = nullptr;

  explicit operator bool() const { return value != nullptr; }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

TensorView view_of(const OrtValue* value);

struct ValueRelease {
  void operator()(OrtValue* value) const;
};
using ValuePointer = std::unique_ptr<OrtValue, ValueRelease>;

// A tensor in memory that stays the caller's.
ValuePointer view_of_memory(const OrtMemoryInfo* memory, void* data, const Shape& shape, ElementType type);

// What a node says about itself when its kernel is made.
class KernelInfo {
 public:
  explicit KernelInfo(const OrtKernelInfo* info) : info_(info) {}
  std::string node_name() const;
  int64_t integer(const char* name) const;                    // throws where absent
  int64_t integer(const char* name, int64_t fallback) const;  // fallback where absent
  float real(const char* name, float fallback) const;         // fallback where absent
  std::string text(const char* name) const;                   // empty where absent
  Shape integers(const char* name) const;                     // throws where absent
  Shape integers_or_none(const char* name) const;             // empty where absent
  TensorView constant_input(size_t index) const;              // empty unless the input is a constant initializer
  ElementType input_type(size_t index) const;                 // kUndefined where the node leaves it out
  const OrtKernelInfo* get() const { return info_; }

 private:
  const OrtKernelInfo* info_;
};

class KernelContext {
 public:
  explicit KernelContext(OrtKernelContext* context) : context_(context) {}
  size_t input_count() const;
  TensorView input(size_t index) const;  // empty where an optional input is absent
  void* output(const Shape& shape) const;
  OrtValue* output_value(const Shape& shape) const;
  void* stream() const;  // of an op on CUDA: a cudaStream_t
  OrtKernelContext* get() const { return context_; }

 private:
  OrtKernelContext* context_;
};

class ShapeContext {
 public:
  explicit ShapeContext(OrtShapeInferContext* context) : context_(context) {}
  ElementType input_type(size_t index) const;
  Shape input_shape(size_t index) const;                       // -1 for an unknown dimension
  std::vector<std::string> input_symbols(size_t index) const;  // names of unknown dimensions, else empty
  int64_t integer(const char* name) const;
  int64_t integer(const char* name, int64_t fallback) const;  // fallback where absent
  std::string text(const char* name) const;                   // empty where absent
  Shape integers(const char* name) const;
  Shape integers_or_none(const char* name) const;  // empty where absent
  void set_output(ElementType type, const Shape& shape) const;
  // ONNX Runtime takes two dimensions of -1 for equal, and would share the memory of tensors that differ. So each one
  // must have a name: that of the dimension of input 0 that `origins` gives for it, or where that is -1 one of its own.
  void set_output(ElementType type, const Shape& shape, const std::vector<int>& origins) const;

 private:
  const OrtOpAttr* attribute(const char* name) const;
  const OrtOpAttr* attribute_or_none(const char* name) const;
  OrtShapeInferContext* context_;
};

// Where an op's kernel runs. On CUDA the blob of a decoder stays in the host's memory, from where the kernel copies it
// to the device once; all other inputs and the output are the device's.
enum class Provider { kCpu, kCuda };
inline constexpr int kHostInput = -2, kDefaultMemory = 0;  // OrtMemType

// A name may stand for one set of types only, so inputs of several types, and outputs whose type follows from them, are
// kUndefined here: ONNX Runtime then takes the output's type from Kernel::infer.
struct Signature {
  const char* name;
  std::vector<std::pair<ElementType, Characteristic>> inputs;
  ElementType output;
  Provider provider = Provider::kCpu;
  int host_input = -1;  // on CUDA: which input stays in the host's memory
};

// An op of the domain: what ONNX Runtime sees, and behind it what the callbacks need.
struct Op : OrtCustomOp {
  Signature signature;
  int threads = 0;
};

template <typename Kernel>
std::unique_ptr<Op> make_op(Signature signature, int threads) {
  auto op = std::make_unique<Op>();
  static_cast<OrtCustomOp&>(*op) = OrtCustomOp{};
  op->signature = std::move(signature);
  op->threads = threads;
  op->version = kApiVersion;
  op->GetName = [](const OrtCustomOp* base) { return static_cast<const Op*>(base)->signature.name; };
  op->GetExecutionProviderType = [](const OrtCustomOp* base) -> const char* {
    return static_cast<const Op*>(base)->signature.provider == Provider::kCuda ? "CUDAExecutionProvider" : nullptr;
  };
  op->GetInputTypeCount = [](const OrtCustomOp* base) { return static_cast<const Op*>(base)->signature.inputs.size(); };
  op->GetInputType = [](const OrtCustomOp* base, size_t index) -> int {
    return static_cast<const Op*>(base)->signature.inputs[index].first;
  };
  op->GetInputCharacteristic = [](const OrtCustomOp* base, size_t index) -> int {
    return static_cast<const Op*>(base)->signature.inputs[index].second;
  };
  op->GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op->GetOutputType = [](const OrtCustomOp* base, size_t) -> int {
    return static_cast<const Op*>(base)->signature.output;
  };
  op->GetOutputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return kRequired; };
  op->GetInputMemoryType = [](const OrtCustomOp* base, size_t index) -> int {
    return static_cast<int>(index) == static_cast<const Op*>(base)->signature.host_input ? kHostInput : kDefaultMemory;
  };
  op->GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op->GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op->GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op->GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op->GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op->GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
  op->CreateKernelV2 = [](const OrtCustomOp* base, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
    *kernel = nullptr;
    return guarded([&] {
      const KernelInfo node(info);
      const Op& made = *static_cast<const Op*>(base);
      try {
        *kernel = new Kernel(node, made.threads);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error("toolkit." + std::string(made.signature.name) + " node '" + node.node_name() +
                                 "': " + error.what());
      }
    });
  };
  op->KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return guarded([&] {
      KernelContext run(context);
      static_cast<const Kernel*>(kernel)->compute(run);
    });
  };
  op->KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op->InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
    return guarded([&] {
      ShapeContext shapes(context);
      Kernel::infer(shapes);
    });
  };
  return op;
}

using OpList = std::vector<std::unique_ptr<Op>>;

// Each adds the ops of one file.
void add_wide_ops(OpList& ops, int threads);
void add_fused_ops(OpList& ops, int threads);
void add_small_ops(OpList& ops, int threads);
void add_take_ops(OpList& ops, int threads);
void add_join_ops(OpList& ops, int threads);
void add_packed_ops(OpList& ops, int threads);
void add_product_ops(OpList& ops, int threads);
// The same ops for CUDA, where the library has CUDA code.
void add_cuda_ops(OpList& ops, int threads);
void add_cuda_product_ops(OpList& ops, int threads);

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_KERNEL_H
