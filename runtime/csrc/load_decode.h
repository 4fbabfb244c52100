// Load mode: decodes all weights of a model into memory of the caller.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_LOAD_DECODE_H
#define TOOLKIT_LOAD_DECODE_H

#include <memory>
#include <string_view>
#include <vector>

#include "load_chains.h"
#include "wide_format.h"

namespace toolkit::load {

// An opened blob: a segment, or the symbols of a stream.
struct Opened {
  std::unique_ptr<uint16_t[]> copy;  // of words that lie at an odd address
  wide::Segment segment;
  std::vector<int16_t> stream;

  // False where the blob is refused.
  bool open(const Blob& blob);
};

class Decoder {
 public:
  // Opens the blobs. Throws Unknown where one is refused, or does not hold what the chains take out of it.
  Decoder(Chains* chains, int threads);

  // Decodes each weight to the place of the same index. Throws Unknown where that fails.
  void decode(const std::vector<char*>& places, int threads);

 private:
  bool is_stream(size_t source) const { return chains_.blobs[chains_.sources[source].blob].is_stream; }
  bool is_direct(const Weight& weight) const;
  void open_blobs(int threads);
  void find_tensors();
  tk_status decode_direct(const Weight& weight, int64_t begin, int64_t end, void* to) const;
  void finish(const Weight& weight, char* to, int threads) const;

  const Chains& chains_;
  std::vector<Opened> opened_;                    // by blob
  std::vector<const wide::Tensor*> tensors_;      // by source, null for streams
  std::vector<int64_t> sizes_;                    // by source: of tensors that are decoded whole, else 0
  std::vector<std::unique_ptr<char[]>> symbols_;  // by source: those of such tensors
};

}  // namespace toolkit::load

#endif  // TOOLKIT_LOAD_DECODE_H
