// The ops TakeTensor and TakeRange, on every provider: one tensor out of decoded symbols.
// SPDX-License-Identifier: Apache-2.0
//
// Copy is how a provider copies: Copy(context).rows(to, from, bytes, count, pitch) copies `count` rows of `bytes` bytes
// that lie `pitch` bytes apart to one place.
#ifndef TOOLKIT_ORT_TAKE_H
#define TOOLKIT_ORT_TAKE_H

#include "ort_kernel.h"

namespace toolkit::ort {

// Bytes of a symbol; throws on a type that decoders do not make.
inline int64_t symbol_bytes(ElementType type) {
  if (type == kInt8 || type == kUint8) return 1;
  if (type == kInt16) return 2;
  throw std::runtime_error("symbols of element type " + std::to_string(type) + ", expected int8, int16 or uint8");
}

// The output has the type of the symbols and the shape of the attribute.
inline void infer_symbols(ShapeContext& shapes) {
  const ElementType type = shapes.input_type(0);
  symbol_bytes(type);
  shapes.set_output(type, shapes.integers("shape"));
}

// symbols [L, T] -> the first prod(shape) symbols of rows lane ... lane + lanes - 1, columns 0 ... steps - 1, as
// [shape]
template <class Copy>
class TakeTensor {
 public:
  TakeTensor(const KernelInfo& info, int /*threads*/)
      : lane_(info.integer("lane")),
        lanes_(info.integer("lanes")),
        steps_(info.integer("steps")),
        shape_(info.integers("shape")),
        count_(element_count(shape_)) {
    if (lane_ < 0 || lanes_ < 1 || steps_ < 1) throw std::runtime_error("lane, lanes or steps is out of range");
  }

  void compute(KernelContext& context) const {
    const TensorView symbols = context.input(0);
    if (symbols.shape.size() != 2) throw std::runtime_error("TakeTensor: symbols must be a matrix");
    const int64_t rows = symbols.shape[0], columns = symbols.shape[1];
    int64_t available = 0;
    if (lane_ > rows || lanes_ > rows - lane_ || steps_ > columns ||
        __builtin_mul_overflow(lanes_, steps_, &available) || count_ > available)
      throw std::runtime_error("TakeTensor: " + std::to_string(count_) + " symbols of " + std::to_string(lanes_) +
                               " lanes from lane " + std::to_string(lane_) + " on, " + std::to_string(steps_) +
                               " steps each, are not in a matrix of " + std::to_string(rows) + " x " +
                               std::to_string(columns));
    const int64_t size = symbol_bytes(symbols.type);
    auto* out = static_cast<char*>(context.output(shape_));
    const char* row = symbols.as<char>() + lane_ * columns * size;
    const int64_t whole = count_ / steps_, rest = count_ % steps_;
    const Copy copy(context);
    copy.rows(out, row, steps_ * size, whole, columns * size);
    copy.rows(out + whole * steps_ * size, row + whole * columns * size, rest * size, 1, columns * size);
  }

  static void infer(ShapeContext& shapes) { infer_symbols(shapes); }

 private:
  int64_t lane_, lanes_, steps_;
  Shape shape_;
  int64_t count_;
};

// stream [n] -> stream[first : first + prod(shape)] as [shape]
template <class Copy>
class TakeRange {
 public:
  TakeRange(const KernelInfo& info, int /*threads*/)
      : first_(info.integer("first")), shape_(info.integers("shape")), count_(element_count(shape_)) {
    if (first_ < 0) throw std::runtime_error("first is negative");
  }

  void compute(KernelContext& context) const {
    const TensorView stream = context.input(0);
    if (stream.shape.size() != 1) throw std::runtime_error("TakeRange: the stream must have one dimension");
    if (first_ > stream.count || count_ > stream.count - first_)
      throw std::runtime_error("TakeRange: " + std::to_string(count_) + " symbols from " + std::to_string(first_) +
                               " on are not in a stream of " + std::to_string(stream.count));
    void* out = context.output(shape_);
    const int64_t size = symbol_bytes(stream.type);
    Copy(context).rows(out, stream.as<char>() + first_ * size, count_ * size, 1, count_ * size);
  }

  static void infer(ShapeContext& shapes) { infer_symbols(shapes); }

 private:
  int64_t first_;
  Shape shape_;
  int64_t count_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_TAKE_H
