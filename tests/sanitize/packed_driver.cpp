// Packs, multiplies and unpacks weights of many sizes in memory of exactly their size, by the source that the device
// compiles: a sanitizer sees every access outside. SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

#include "cuda_api.h"
#include "half_float.h"

namespace {

template <class T>
class Memory {
 public:
  // At `shift` elements behind a multiple of 16 bytes.
  explicit Memory(int64_t count, int64_t shift = 0)
      : all_(static_cast<T*>(::operator new(static_cast<size_t>(count + shift) * sizeof(T), std::align_val_t(16)))),
        first_(all_ + shift) {}
  ~Memory() { ::operator delete(all_, std::align_val_t(16)); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  T& operator[](int64_t i) { return first_[i]; }
  T* get() { return first_; }

 private:
  T *all_, *first_;
};

void expect(bool good, const char* what, int64_t outputs, int64_t inputs, int bits) {
  if (good) return;
  std::fprintf(stderr, "%s of %ld x %ld fields of %d bits\n", what, long(outputs), long(inputs), bits);
  std::exit(1);
}

void run(int64_t outputs, int64_t inputs, int bits, int64_t group, bool codebook, int64_t shift, std::mt19937& random) {
  const int64_t batch = 9, groups = (inputs - 1) / group + 1, words = tk_packed_words(outputs, inputs, bits);
  Memory<uint8_t> fields(outputs * inputs), again(outputs * inputs);
  for (int64_t i = 0; i < outputs * inputs; ++i) fields[i] = static_cast<uint8_t>(random() & ((1u << bits) - 1));
  Memory<uint32_t> packed(words);
  expect(tk_pack_fields(fields.get(), outputs, inputs, bits, packed.get()) == TK_OK, "packing", outputs, inputs, bits);
  tk_unpack_fields(packed.get(), outputs, inputs, bits, again.get());
  for (int64_t i = 0; i < outputs * inputs; ++i) expect(fields[i] == again[i], "unpacking", outputs, inputs, bits);
  const auto half = [](double value) { return toolkit::half_from_float(static_cast<float>(value)); };
  Memory<uint16_t> x(batch * inputs, shift), scales(groups * outputs), zeros(groups * outputs), book(1 << bits),
      out(batch * outputs), weight(outputs * inputs, shift);
  for (int64_t i = 0; i < batch * inputs; ++i) x[i] = half(random() % 17 / 8.0 - 1);
  for (int64_t i = 0; i < groups * outputs; ++i) scales[i] = half(random() % 7 + 1), zeros[i] = half(random() % 9);
  for (int64_t i = 0; i < 1 << bits; ++i) book[i] = half(random() % 33 / 16.0 - 1);
  tk_packed product{x.get(),
                    packed.get(),
                    scales.get(),
                    codebook ? nullptr : zeros.get(),
                    codebook ? book.get() : nullptr,
                    out.get(),
                    batch,
                    outputs,
                    inputs,
                    group,
                    bits,
                    0};
  expect(tk_emulate_packed(&product) == TK_OK, "the product", outputs, inputs, bits);
  tk_unpacking unpacking{packed.get(),
                         scales.get(),
                         codebook ? nullptr : zeros.get(),
                         codebook ? book.get() : nullptr,
                         weight.get(),
                         outputs,
                         inputs,
                         group,
                         bits,
                         10};
  expect(tk_unpack_weight(&unpacking, 1) == TK_OK, "the weight", outputs, inputs, bits);
  for (int64_t row = 0; row < batch; ++row)
    for (int64_t n = 0; n < outputs; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < inputs; ++k) {
        const double term = static_cast<double>(toolkit::float_from_half(weight[n * inputs + k])) *
                            toolkit::float_from_half(x[row * inputs + k]);
        sum += term;
        magnitude += std::fabs(term);
      }
      const double found = toolkit::float_from_half(out[row * outputs + n]);
      expect(std::fabs(found - sum) <= 1e-3 * magnitude + 1e-3, "a product with the weight", outputs, inputs, bits);
    }
}

}  // namespace

int main() {
  std::mt19937 random(1);
  for (int bits = 1; bits <= 8; ++bits)
    for (const int64_t outputs : {1, 7, 16, 17, 40})
      for (const int64_t inputs : {1, 8, 31, 32, 33, 64, 100, 256, 264, 300})
        for (const int64_t group : {int64_t{32}, int64_t{96}, inputs})
          for (const int64_t shift : {0, 1})
            run(outputs, inputs, bits, group, (bits + outputs + shift) % 2 == 0, shift, random);
  std::puts("done");
}
