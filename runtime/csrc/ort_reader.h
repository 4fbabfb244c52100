// Wide readers for kernels: one reader per blob, shared by all nodes that read the blob.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ORT_READER_H
#define TOOLKIT_ORT_READER_H

#include <memory>
#include <string>

#include "codec_api.h"
#include "ort_kernel.h"

namespace toolkit::ort {

// Throws "<what>: <text of the status>" unless the status is TK_OK.
void check_codec(int32_t status, const std::string& what);

// The symbols of a small stream; throws where the blob is not of this coder or does not decode.
std::vector<int16_t> decode_small(const TensorView& blob, int coder);

// An open wide blob. The words belong to ONNX Runtime and outlive the kernels that hold the reader.
class Reader {
 public:
  Reader(const uint16_t* words, int64_t num_words);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  const tk_wide_reader* get() const { return reader_; }
  const tk_wide_info& info() const { return info_; }
  tk_wide_tensor_info tensor(int64_t index) const;  // throws where there is no such tensor

 private:
  tk_wide_reader* reader_ = nullptr;
  tk_wide_info info_{};
};

using ReaderPointer = std::shared_ptr<const Reader>;

// The reader of the blob that is an input of a kernel. Where the blob is a constant initializer, it is checked and
// opened when the kernel is made, so that a bad blob is refused at session creation; otherwise it is opened at each
// run.
class BlobInput {
 public:
  explicit BlobInput(const KernelInfo& info, size_t input = 0);
  ReaderPointer open(const KernelContext& context) const;
  const Reader* constant() const { return reader_.get(); }  // null unless the blob is constant

 private:
  size_t input_;
  ReaderPointer reader_;
};

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_READER_H
