// Wide readers for kernels: one reader per blob, shared by all nodes that read the blob.
// SPDX-License-Identifier: Apache-2.0
#include "ort_reader.h"

#include <map>
#include <mutex>
#include <tuple>

namespace toolkit::ort {
namespace {

// Nodes of one session see the same initializer at the same address. The blob's header words are part of the key, so
// that another blob that later takes the address is opened anew.
using Key = std::tuple<const uint16_t*, int64_t, uint32_t>;

ReaderPointer shared_reader(const uint16_t* words, int64_t num_words) {
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<const Reader>> readers;
  const uint32_t checksum = num_words < 4 ? 0 : static_cast<uint32_t>(words[2]) | static_cast<uint32_t>(words[3]) << 16;
  const std::lock_guard<std::mutex> lock(mutex);
  for (auto entry = readers.begin(); entry != readers.end();)
    entry = entry->second.expired() ? readers.erase(entry) : std::next(entry);
  std::weak_ptr<const Reader>& known = readers[Key(words, num_words, checksum)];
  ReaderPointer reader = known.lock();
  if (reader == nullptr) {
    reader = std::make_shared<const Reader>(words, num_words);
    known = reader;
  }
  return reader;
}

void check_blob(const TensorView& blob) {
  if (blob.type != kUint16 || blob.shape.size() != 1)
    throw std::runtime_error("the blob must be a one-dimensional uint16 tensor");
}

}  // namespace

void check_codec(int32_t status, const std::string& what) {
  if (status == TK_OK) return;
  if (status == TK_ERR_MEMORY) throw std::bad_alloc();
  throw std::runtime_error(what + ": " + tk_status_text(status) + " (status " + std::to_string(status) + ")");
}

Reader::Reader(const uint16_t* words, int64_t num_words) {
  check_codec(tk_wide_open(words, num_words, &reader_),
              "the blob of " + std::to_string(num_words) + " words is refused");
  const int32_t status = tk_wide_get_info(reader_, &info_);
  if (status != TK_OK) tk_wide_close(reader_);
  check_codec(status, "the blob's description");
}

Reader::~Reader() { tk_wide_close(reader_); }

tk_wide_tensor_info Reader::tensor(int64_t index) const {
  if (index < 0 || index >= info_.num_tensors)
    throw std::runtime_error("tensor " + std::to_string(index) + " of a blob of " + std::to_string(info_.num_tensors));
  tk_wide_tensor_info tensor{};
  check_codec(tk_wide_get_tensor(reader_, index, &tensor), "the description of tensor " + std::to_string(index));
  return tensor;
}

BlobInput::BlobInput(const KernelInfo& info, size_t input) : input_(input) {
  const TensorView blob = info.constant_input(input);
  if (!blob) return;
  check_blob(blob);
  reader_ = shared_reader(blob.as<uint16_t>(), blob.count);
}

ReaderPointer BlobInput::open(const KernelContext& context) const {
  if (reader_ != nullptr) return reader_;
  const TensorView blob = context.input(input_);
  check_blob(blob);
  return std::make_shared<const Reader>(blob.as<uint16_t>(), blob.count);
}

}  // namespace toolkit::ort
