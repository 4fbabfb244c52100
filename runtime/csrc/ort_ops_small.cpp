// The ops DecodeAdaptive, DecodeHuffman and DecodeFixed: the blob of one small stream to its symbols.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "blob_frame.h"
#include "ort_reader.h"
#include "small_coders.h"

namespace toolkit::ort {

std::vector<int16_t> decode_small(const TensorView& blob, int wanted) {
  if (blob.type != kUint16 || blob.shape.size() != 1)
    throw std::runtime_error("the blob must be a one-dimensional uint16 tensor");
  int32_t coder = 0;
  int64_t count = 0;
  const std::string what = "the blob of " + std::to_string(blob.count) + " words is refused";
  check_codec(tk_small_info(blob.as<uint16_t>(), blob.count, &coder, &count), what);
  if (coder != wanted) check_codec(TK_ERR_CODER, what);
  std::vector<int16_t> symbols(static_cast<size_t>(count));
  check_codec(tk_small_decode(blob.as<uint16_t>(), blob.count, symbols.data(), count), what);
  return symbols;
}

namespace {

// blob uint16 [n] -> symbols int16 [count]. These streams are small and sequential: a constant blob is decoded once,
// when the kernel is made, which also finds every inconsistency at session creation.
template <Coder kWanted>
class DecodeSmall {
 public:
  DecodeSmall(const KernelInfo& info, int /*threads*/) {
    const TensorView blob = info.constant_input(0);
    if (blob) symbols_ = decode_small(blob, kWanted);
  }

  void compute(KernelContext& context) const {
    const std::vector<int16_t> fresh =
        symbols_.empty() ? decode_small(context.input(0), kWanted) : std::vector<int16_t>();
    const std::vector<int16_t>& symbols = symbols_.empty() ? fresh : symbols_;
    void* out = context.output({static_cast<int64_t>(symbols.size())});
    std::copy(symbols.begin(), symbols.end(), static_cast<int16_t*>(out));
  }

  // The size stands in the blob. ONNX Runtime takes two sizes given as -1 for equal and would share their memory, so
  // none is given; the type is the op's own.
  static void infer(ShapeContext& /*shapes*/) {}

 private:
  std::vector<int16_t> symbols_;
};

}  // namespace

void add_small_ops(OpList& ops, int threads) {
  ops.push_back(make_op<DecodeSmall<kCoderAdaptive>>({"DecodeAdaptive", {{kUint16, kRequired}}, kInt16}, threads));
  ops.push_back(make_op<DecodeSmall<kCoderHuffman>>({"DecodeHuffman", {{kUint16, kRequired}}, kInt16}, threads));
  ops.push_back(make_op<DecodeSmall<kCoderFixed>>({"DecodeFixed", {{kUint16, kRequired}}, kInt16}, threads));
}

}  // namespace toolkit::ort
