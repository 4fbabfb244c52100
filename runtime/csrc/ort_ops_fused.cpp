// The ops DecodeTensor, DecodeDequantize and DecodeLookup: one tensor of a wide blob, as symbols or straight to
// floating point. SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ort_weights.h"

namespace toolkit::ort {
namespace {

// blob uint16 [n] -> symbols int8 or int16 [shape], the first of tensor number `tensor`
template <ElementType kSymbol>
class DecodeTensor {
 public:
  DecodeTensor(const KernelInfo& info, int threads) : source_(info), threads_(threads) {
    if (source_.blob.constant() != nullptr) check_width(*source_.blob.constant());
  }

  void compute(KernelContext& context) const {
    const ReaderPointer reader = source_.open(context);
    check_width(*reader);
    const tk_wide_tensor_info info = reader->tensor(source_.tensor);
    const int64_t symbol_bytes = kSymbol == kInt16 ? 2 : 1, size = info.a * info.b * info.c * symbol_bytes;
    void* const out = context.output(source_.shape);
    const bool whole = source_.count * symbol_bytes == size;
    std::vector<char> padded(whole ? 0 : static_cast<size_t>(size));
    void* const to = whole ? out : padded.data();
    check_codec(tk_wide_decode_tensor(reader->get(), source_.tensor, to, size, threads_, TK_ISA_AUTO), source_.name());
    if (!whole) std::copy_n(padded.data(), source_.count * symbol_bytes, static_cast<char*>(out));
  }

  static void infer(ShapeContext& shapes) { shapes.set_output(kSymbol, shapes.integers("shape")); }

 private:
  static void check_width(const Reader& reader) {
    if ((reader.info().wide != 0) != (kSymbol == kInt16))
      throw std::runtime_error(kSymbol == kInt16 ? "the blob holds int8 symbols: use DecodeTensor"
                                                 : "the blob holds int16 symbols: use DecodeTensor16");
  }

  TensorOfBlob source_;
  int threads_;
};

}  // namespace

void add_fused_ops(OpList& ops, int threads) {
  ops.push_back(make_op<DecodeTensor<kInt8>>({"DecodeTensor", {{kUint16, kRequired}}, kInt8}, threads));
  ops.push_back(make_op<DecodeTensor<kInt16>>({"DecodeTensor16", {{kUint16, kRequired}}, kInt16}, threads));
  ops.push_back(make_op<DecodeWeight<DequantizedWeight>>(
      {"DecodeDequantize", {{kUint16, kRequired}, {kUndefined, kRequired}, {kUndefined, kOptional}}, kUndefined},
      threads));
  ops.push_back(make_op<DecodeWeight<LookedUpWeight>>(
      {"DecodeLookup", {{kUint16, kRequired}, {kUndefined, kRequired}}, kUndefined}, threads));
}

}  // namespace toolkit::ort
