// The ops DecodeWide and DecodeWide16: a wide blob to the matrix of all its symbols.
// SPDX-License-Identifier: Apache-2.0
#include "ort_reader.h"

namespace toolkit::ort {
namespace {

// blob uint16 [n] -> symbols int8 or int16 [lanes, steps]
template <ElementType kSymbol>
class DecodeWide {
 public:
  DecodeWide(const KernelInfo& info, int threads) : blob_(info), threads_(threads) {
    if (blob_.constant() != nullptr) check_width(*blob_.constant());
  }

  void compute(KernelContext& context) const {
    const ReaderPointer reader = blob_.open(context);
    check_width(*reader);
    const tk_wide_info& info = reader->info();
    void* out = context.output({info.num_lanes, info.num_steps});
    const int64_t num_bytes = info.num_lanes * info.num_steps * (kSymbol == kInt16 ? 2 : 1);
    check_codec(tk_wide_decode_all(reader->get(), out, num_bytes, threads_, TK_ISA_AUTO), "decoding");
  }

  // The sizes stand in the blob. ONNX Runtime takes two sizes given as -1 for equal and would share their memory, so
  // none is given; the type is the op's own.
  static void infer(ShapeContext& /*shapes*/) {}

 private:
  static void check_width(const Reader& reader) {
    if ((reader.info().wide != 0) != (kSymbol == kInt16))
      throw std::runtime_error(kSymbol == kInt16 ? "the blob holds int8 symbols: use DecodeWide"
                                                 : "the blob holds int16 symbols: use DecodeWide16");
  }

  BlobInput blob_;
  int threads_;
};

}  // namespace

void add_wide_ops(OpList& ops, int threads) {
  ops.push_back(make_op<DecodeWide<kInt8>>({"DecodeWide", {{kUint16, kRequired}}, kInt8}, threads));
  ops.push_back(make_op<DecodeWide<kInt16>>({"DecodeWide16", {{kUint16, kRequired}}, kInt16}, threads));
}

}  // namespace toolkit::ort
