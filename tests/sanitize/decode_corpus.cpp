// Decodes every file of a folder with every decoder; meant to be built with sanitizers.
// SPDX-License-Identifier: Apache-2.0
//
// usage: toolkit_fuzz_driver FOLDER
// Prints one line "name status status status" per file: of the wide decoder, of the decoder of small streams, and of
// load mode, which takes the file for a model. The exit code is 0 unless the folder cannot be read: a refused file is
// what is expected here, and a fault ends the program through the sanitizer.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "codec_api.h"
#include "cuda/cuda_api.h"
#include "load_plan.h"
#include "small_coders.h"

namespace {

constexpr int64_t kMostSymbols = int64_t{1} << 26;  // a sound blob of the corpus has fewer

// Memory of exactly the size that is asked for, so that a read past it is seen.
template <typename T>
std::unique_ptr<T[]> copy_of(const std::vector<char>& bytes, int64_t* count) {
  *count = static_cast<int64_t>(bytes.size() / sizeof(T));
  auto copy = std::make_unique<T[]>(static_cast<size_t>(*count));
  std::copy_n(bytes.begin(), static_cast<size_t>(*count) * sizeof(T), reinterpret_cast<char*>(copy.get()));
  return copy;
}

// *digest: a checksum of the decoded symbols, 0 where there are none.
int32_t decode_wide(const uint16_t* words, int64_t num_words, int32_t isa, uint32_t* digest) {
  *digest = 0;
  tk_wide_reader* reader = nullptr;
  int32_t status = tk_wide_open(words, num_words, &reader);
  if (status != TK_OK) return status;
  tk_wide_info info{};
  status = tk_wide_get_info(reader, &info);
  const int64_t size = info.wide ? 2 : 1;
  if (status == TK_OK && info.num_lanes * info.num_steps <= kMostSymbols) {
    std::vector<char> out(static_cast<size_t>(info.num_lanes * info.num_steps * size));
    status = tk_wide_decode_all(reader, out.data(), static_cast<int64_t>(out.size()), 2, isa);
    if (status == TK_OK) *digest = tk_crc32(out.data(), static_cast<int64_t>(out.size()));
  }
  int64_t symbols = 0;
  for (int64_t index = 0; index < info.num_tensors; ++index) {
    tk_wide_tensor_info tensor{};
    if (tk_wide_get_tensor(reader, index, &tensor) == TK_OK) symbols += tensor.a * tensor.b * tensor.c;
  }
  if (symbols <= kMostSymbols) {
    std::vector<char> out(static_cast<size_t>(symbols * size));
    const int32_t decoded = tk_wide_decode_tensors(reader, out.data(), static_cast<int64_t>(out.size()), 2, isa);
    if (status == TK_OK) status = decoded;
  }
  for (int64_t index = 0; index < info.num_tensors; ++index) {
    tk_wide_tensor_info tensor{};
    const int32_t found = tk_wide_get_tensor(reader, index, &tensor);
    const int64_t count = tensor.a * tensor.b * tensor.c;
    if (found != TK_OK || count > kMostSymbols) continue;
    std::vector<char> out(static_cast<size_t>(count * size));
    const int32_t decoded = tk_wide_decode_tensor(reader, index, out.data(), static_cast<int64_t>(out.size()), 1, isa);
    if (status == TK_OK) status = decoded;

    const float scale = 0.5f;
    tk_dequantize how{};
    how.scales = &scale;
    how.num_scales = 1;
    how.inner = 1;
    how.num_values = count;
    how.out_type = TK_FLOAT16;
    std::vector<uint16_t> halves(static_cast<size_t>(count));
    tk_wide_decode_dequantize(reader, index, &how, halves.data(), count * 2, 1, isa);

    const std::vector<float> codebook(256);
    std::vector<float> floats(static_cast<size_t>(count));
    tk_wide_decode_lookup(reader, index, codebook.data(), 256, 128, 4, count, floats.data(), count * 4, 1, isa);
  }
  tk_wide_close(reader);
  return status;
}

// The GPU's program on the host, with tables in every layout: the first status that is not TK_OK.
int32_t emulate(const uint16_t* words, int64_t num_words) {
  tk_wide_reader* reader = nullptr;
  int32_t status = tk_wide_open(words, num_words, &reader);
  if (status != TK_OK) return status;
  tk_wide_info info{};
  tk_wide_get_info(reader, &info);
  const int64_t size = info.wide ? 2 : 1;
  for (int32_t layout = -1; layout <= 3; ++layout) {
    tk_output as_symbols{};
    as_symbols.inner = 1;
    if (info.num_lanes * info.num_steps <= kMostSymbols) {
      std::vector<char> out(static_cast<size_t>(info.num_lanes * info.num_steps * size));
      const auto bytes = static_cast<int64_t>(out.size());
      const int32_t now = tk_emulate_decode(reader, -1, layout, &as_symbols, out.data(), bytes);
      if (status == TK_OK && layout < 0) status = now;
    }
    for (int64_t index = 0; index < info.num_tensors; ++index) {
      tk_wide_tensor_info tensor{};
      const int32_t found = tk_wide_get_tensor(reader, index, &tensor);
      const int64_t count = tensor.a * tensor.b * tensor.c;
      if (found != TK_OK || count > kMostSymbols) continue;
      const std::vector<float> scales(static_cast<size_t>(tensor.c), 0.5f);
      tk_output halves{};
      halves.kind = TK_FLOAT16;
      halves.scale_type = TK_FLOAT32;
      halves.scales = scales.data();
      halves.num_scales = tensor.c;
      halves.inner = 1;
      halves.num_values = count;
      std::vector<uint16_t> out(static_cast<size_t>(count));
      tk_emulate_decode(reader, index, layout, &halves, out.data(), count * 2);
    }
  }
  tk_wide_close(reader);
  return status;
}

int32_t decode_small(const uint16_t* words, int64_t num_words) {
  int32_t coder = 0;
  int64_t count = 0;
  const int32_t status = tk_small_info(words, num_words, &coder, &count);
  if (status != TK_OK || count > kMostSymbols) return status;
  std::vector<int16_t> out(static_cast<size_t>(count));
  return tk_small_decode(words, num_words, out.data(), count);
}

int32_t load_model(const std::vector<char>& bytes) {
  int64_t size = 0, memory_bytes = 0;
  const std::unique_ptr<char[]> model = copy_of<char>(bytes, &size);
  tk_load* load = nullptr;
  int32_t status = tk_load_open(model.get(), size, 100, 2, &load, &memory_bytes);
  if (status != TK_OK) return status;
  if (memory_bytes <= kMostSymbols * 4) {
    std::vector<char> memory(static_cast<size_t>(memory_bytes));
    status = tk_load_decode(load, memory.data(), memory_bytes, 2);
  }
  tk_load_close(load);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  try {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const std::filesystem::path& file : files) {
      std::ifstream stream(file, std::ios::binary);
      const std::vector<char> bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
      int64_t num_words = 0;
      const std::unique_ptr<uint16_t[]> words = copy_of<uint16_t>(bytes, &num_words);
      int32_t status = TK_OK;
      uint32_t digest = 0;
      for (int32_t isa = TK_ISA_PORTABLE; isa <= std::max<int32_t>(tk_best_isa(), TK_ISA_PORTABLE); ++isa) {
        uint32_t found = 0;
        const int32_t now = decode_wide(words.get(), num_words, isa, &found);
        if (isa != TK_ISA_PORTABLE && (now != status || found != digest)) {
          std::fprintf(stderr, "%s: status %d, symbols %08x; with instruction set %d status %d, symbols %08x\n",
                       file.filename().c_str(), status, digest, isa, now, found);
          return 1;
        }
        status = now;
        digest = found;
      }
      if (const int32_t emulated = emulate(words.get(), num_words); emulated != status) {
        std::fprintf(stderr, "%s: status %d, the GPU's program %d\n", file.filename().c_str(), status, emulated);
        return 1;
      }
      const int32_t small = decode_small(words.get(), num_words);
      std::printf("%s %d %d %d\n", file.filename().c_str(), status, small, load_model(bytes));
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[1], error.what());
    return 2;
  }
  return 0;
}
