// The op JoinFloat: byte planes back to the very same floating-point numbers.
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "float_planes.h"
#include "ort_kernel.h"

namespace toolkit::ort {
namespace {

// plane0 int8 [shape], plane1 uint8 [shape] (, plane2, plane3 for float32) -> attribute to's type, [shape]
class JoinFloat {
 public:
  JoinFloat(const KernelInfo& info, int threads) : to_(type_of(info.integer("to"))), threads_(threads) {}

  void compute(KernelContext& context) const {
    const TensorView first = context.input(0);
    if (to_ == kFloat32)
      run<uint32_t>(context, first);
    else
      run<uint16_t>(context, first);
  }

  static void infer(ShapeContext& shapes) { shapes.set_output(type_of(shapes.integer("to")), shapes.input_shape(0)); }

 private:
  static ElementType type_of(int64_t to) {
    if (to != kFloat32 && to != kFloat16 && to != kBfloat16)
      throw std::runtime_error("JoinFloat: attribute 'to' is " + std::to_string(to) + ", expected 1, 10 or 16");
    return static_cast<ElementType>(to);
  }

  template <typename Bits>
  void run(KernelContext& context, const TensorView& first) const {
    std::array<const uint8_t*, sizeof(Bits)> planes{first.as<uint8_t>()};
    for (size_t plane = 1; plane < sizeof(Bits); ++plane) {
      const TensorView view = context.input(plane);
      if (!view || view.shape != first.shape)
        throw std::runtime_error("JoinFloat: plane " + std::to_string(plane) + " is missing or has another shape");
      planes[plane] = view.as<uint8_t>();
    }
    join_planes(planes.data(), first.count, threads_, static_cast<Bits*>(context.output(first.shape)));
  }

  ElementType to_;
  int threads_;
};

}  // namespace

void add_join_ops(OpList& ops, int threads) {
  ops.push_back(make_op<JoinFloat>(
      {"JoinFloat", {{kInt8, kRequired}, {kUint8, kRequired}, {kUint8, kRequired}, {kUint8, kRequired}}, kUndefined},
      threads));
  // A function body has a fixed number of inputs, so the two-plane types have a name of their own.
  ops.push_back(make_op<JoinFloat>({"JoinHalf", {{kInt8, kRequired}, {kUint8, kRequired}}, kUndefined}, threads));
}

}  // namespace toolkit::ort
