// The decoding ops for ONNX Runtime's CUDA provider: the same names, attributes and values as on the CPU.
// SPDX-License-Identifier: Apache-2.0
//
// A blob must be a constant initializer. It is checked and copied to the device when the kernel is made, decoded there
// once to see that it decodes, and the session is refused where it does not. A run only puts work on the session's
// stream: it allocates nothing, waits for nothing, and may be captured in a CUDA graph.
#include <algorithm>

#include "blob_frame.h"
#include "device_memory.h"
#include "device_weights.h"
#include "ort_take.h"

namespace toolkit::ort {
namespace {

using cuda::DeviceBuffer;

template <ElementType kSymbol>
void check_width(const Reader* reader, const char* narrow, const char* wide) {
  if (reader == nullptr || (reader->info().wide != 0) == (kSymbol == kInt16)) return;
  throw std::runtime_error(kSymbol == kInt16 ? std::string("the blob holds int8 symbols: use ") + narrow
                                             : std::string("the blob holds int16 symbols: use ") + wide);
}

template <ElementType kSymbol>
class DecodeWide {
 public:
  DecodeWide(const KernelInfo& info, int /*threads*/) : blob_(info), source_(checked(blob_), -1, "decoding") {}

  void compute(KernelContext& context) const {
    const tk_wide_info& info = blob_.constant()->info();
    const int64_t bytes = info.num_lanes * info.num_steps * (kSymbol == kInt16 ? 2 : 1);
    tk_output output{};
    output.inner = 1;
    source_.decode(context.stream(), output, context.output({info.num_lanes, info.num_steps}), bytes);
  }

  static void infer(ShapeContext& /*shapes*/) {}

 private:
  static const Reader* checked(const BlobInput& blob) {
    check_width<kSymbol>(blob.constant(), "DecodeWide", "DecodeWide16");
    return blob.constant();
  }

  BlobInput blob_;
  DeviceSource source_;
};

template <ElementType kSymbol>
class DecodeTensor {
 public:
  DecodeTensor(const KernelInfo& info, int /*threads*/) : of_(info), source_(checked(of_), of_.tensor, of_.name()) {}

  void compute(KernelContext& context) const {
    tk_output output{};
    output.inner = 1;
    output.num_values = of_.count;
    source_.decode(context.stream(), output, context.output(of_.shape), of_.count * (kSymbol == kInt16 ? 2 : 1));
  }

  static void infer(ShapeContext& shapes) { shapes.set_output(kSymbol, shapes.integers("shape")); }

 private:
  static const Reader* checked(const TensorOfBlob& of) {
    check_width<kSymbol>(of.blob.constant(), "DecodeTensor", "DecodeTensor16");
    return of.blob.constant();
  }

  TensorOfBlob of_;
  DeviceSource source_;
};

// Streams of the small coders are decoded on the host when the kernel is made, and lie decoded on the device.
template <Coder kWanted>
class DecodeSmall {
 public:
  DecodeSmall(const KernelInfo& info, int /*threads*/) {
    const TensorView blob = info.constant_input(0);
    if (!blob) throw std::runtime_error("on CUDA the blob must be a constant initializer");
    const std::vector<int16_t> symbols = decode_small(blob, kWanted);
    count_ = static_cast<int64_t>(symbols.size());
    symbols_ = std::make_unique<DeviceBuffer>(symbols.data(), symbols.size() * sizeof(int16_t));
  }

  void compute(KernelContext& context) const {
    void* const out = context.output({count_});
    cuda::check(cudaMemcpyAsync(out, symbols_->as<void>(), symbols_->bytes(), cudaMemcpyDeviceToDevice,
                                static_cast<cudaStream_t>(context.stream())),
                "copying symbols");
  }

  static void infer(ShapeContext& /*shapes*/) {}

 private:
  int64_t count_ = 0;
  std::unique_ptr<DeviceBuffer> symbols_;
};

// Copies in the device's memory, on the session's stream.
class DeviceCopy {
 public:
  explicit DeviceCopy(const KernelContext& context) : stream_(static_cast<cudaStream_t>(context.stream())) {}
  void rows(void* to, const void* from, int64_t bytes, int64_t count, int64_t pitch) const {
    if (bytes == 0 || count == 0) return;
    const auto width = static_cast<size_t>(bytes);
    // One row may be longer than the pitch that a copy of many takes.
    if (count == 1)
      cuda::check(cudaMemcpyAsync(to, from, width, cudaMemcpyDeviceToDevice, stream_), "copying symbols");
    else
      cuda::check(cudaMemcpy2DAsync(to, width, from, static_cast<size_t>(pitch), width, static_cast<size_t>(count),
                                    cudaMemcpyDeviceToDevice, stream_),
                  "copying symbols");
  }

 private:
  cudaStream_t stream_;
};

// Plane 0 is a byte minus 128; the joined bits are the number's turned left by one (float_planes.h).
template <class Bits>
__global__ void join(const uint8_t* plane0, const uint8_t* plane1, const uint8_t* plane2, const uint8_t* plane3,
                     int64_t count, Bits* out) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint32_t u = static_cast<uint32_t>(plane0[i] ^ 0x80u) << 8 | plane1[i];
    if constexpr (sizeof(Bits) == 4) u = (u << 8 | plane2[i]) << 8 | plane3[i];
    out[i] = static_cast<Bits>(u >> 1 | u << (8 * sizeof(Bits) - 1));
  }
}

class JoinPlanes {
 public:
  JoinPlanes(const KernelInfo& info, int /*threads*/) : to_(type_of(info.integer("to"))) {}

  void compute(KernelContext& context) const {
    const uint8_t* planes[4] = {};
    const size_t wanted = to_ == kFloat32 ? 4 : 2;
    const TensorView first = context.input(0);
    planes[0] = first.as<uint8_t>();
    for (size_t plane = 1; plane < wanted; ++plane) {
      const TensorView view = context.input(plane);
      if (!view || view.shape != first.shape)
        throw std::runtime_error("JoinFloat: plane " + std::to_string(plane) + " is missing or has another shape");
      planes[plane] = view.as<uint8_t>();
    }
    void* const out = context.output(first.shape);
    if (first.count == 0) return;
    constexpr int kThreads = 256;
    const auto blocks = static_cast<unsigned>(std::min<int64_t>((first.count + kThreads - 1) / kThreads, 4096));
    auto* const stream = static_cast<cudaStream_t>(context.stream());
    if (wanted == 4)
      join<<<blocks, kThreads, 0, stream>>>(planes[0], planes[1], planes[2], planes[3], first.count,
                                            static_cast<uint32_t*>(out));
    else
      join<<<blocks, kThreads, 0, stream>>>(planes[0], planes[1], planes[2], planes[3], first.count,
                                            static_cast<uint16_t*>(out));
    cuda::check(cudaGetLastError(), "starting the kernel");
  }

  static void infer(ShapeContext& shapes) { shapes.set_output(type_of(shapes.integer("to")), shapes.input_shape(0)); }

 private:
  static ElementType type_of(int64_t to) {
    if (to != kFloat32 && to != kFloat16 && to != kBfloat16)
      throw std::runtime_error("JoinFloat: attribute 'to' is " + std::to_string(to) + ", expected 1, 10 or 16");
    return static_cast<ElementType>(to);
  }

  ElementType to_;
};

using Inputs = std::vector<std::pair<ElementType, Characteristic>>;

}  // namespace

void add_cuda_ops(OpList& ops, int threads) {
  const std::pair<ElementType, Characteristic> blob{kUint16, kRequired}, any{kUndefined, kRequired};
  const auto decoder = [&](const char* name, Inputs inputs, ElementType output) {
    return Signature{name, std::move(inputs), output, Provider::kCuda, 0};
  };
  const auto on_device = [&](const char* name, Inputs inputs) {
    return Signature{name, std::move(inputs), kUndefined, Provider::kCuda};
  };
  ops.push_back(make_op<DecodeWide<kInt8>>(decoder("DecodeWide", {blob}, kInt8), threads));
  ops.push_back(make_op<DecodeWide<kInt16>>(decoder("DecodeWide16", {blob}, kInt16), threads));
  ops.push_back(make_op<DecodeTensor<kInt8>>(decoder("DecodeTensor", {blob}, kInt8), threads));
  ops.push_back(make_op<DecodeTensor<kInt16>>(decoder("DecodeTensor16", {blob}, kInt16), threads));
  ops.push_back(make_op<DecodeWeight<DeviceScaledWeight>>(
      decoder("DecodeDequantize", {blob, any, {kUndefined, kOptional}}, kUndefined), threads));
  ops.push_back(make_op<DecodeWeight<DeviceCodebookWeight>>(decoder("DecodeLookup", {blob, any}, kUndefined), threads));
  ops.push_back(make_op<DecodeSmall<kCoderAdaptive>>(decoder("DecodeAdaptive", {blob}, kInt16), threads));
  ops.push_back(make_op<DecodeSmall<kCoderHuffman>>(decoder("DecodeHuffman", {blob}, kInt16), threads));
  ops.push_back(make_op<DecodeSmall<kCoderFixed>>(decoder("DecodeFixed", {blob}, kInt16), threads));
  ops.push_back(make_op<TakeTensor<DeviceCopy>>(on_device("TakeTensor", {any}), threads));
  ops.push_back(make_op<TakeRange<DeviceCopy>>(on_device("TakeRange", {any}), threads));
  const std::pair<ElementType, Characteristic> plane0{kInt8, kRequired}, plane{kUint8, kRequired};
  ops.push_back(make_op<JoinPlanes>(on_device("JoinFloat", {plane0, plane, plane, plane}), threads));
  ops.push_back(make_op<JoinPlanes>(on_device("JoinHalf", {plane0, plane}), threads));
}

}  // namespace toolkit::ort
