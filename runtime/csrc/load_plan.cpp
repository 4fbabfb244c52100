// The C API of load mode: arguments checked, exceptions turned into status codes.
// SPDX-License-Identifier: Apache-2.0
#include "load_plan.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "exception_guard.h"
#include "load_chains.h"
#include "load_cut.h"
#include "load_decode.h"

using toolkit::guarded;
using toolkit::load::Chains;
using toolkit::load::Cut;
using toolkit::load::Weight;

struct tk_load {
  tk_load(std::string_view model, int64_t most_inside, int threads)
      : cut(model), chains(cut), decoder(&chains, threads), inside_bytes(most_inside) {}

  Cut cut;
  Chains chains;
  toolkit::load::Decoder decoder;
  int64_t inside_bytes;
  std::vector<int64_t> offsets;  // by weight, in the memory of its kind
  int64_t memory_bytes = 0, small_bytes = 0;
  std::string rest, names;
  std::vector<int64_t> numbers;

  bool is_inside(const Weight& weight) const { return weight.bytes() <= inside_bytes; }
};

namespace {

namespace onnx = toolkit::onnx;
namespace number = toolkit::onnx::number;

constexpr int64_t kAlignment = 64;
constexpr int64_t kMostRest = 0x7fffffff;  // bytes that protobuf allows

void lay_out(tk_load* load) {
  for (const Weight& weight : load->chains.weights) {
    int64_t& bytes = load->is_inside(weight) ? load->small_bytes : load->memory_bytes;
    load->offsets.push_back(bytes);
    bytes += (weight.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
}

void put_entry(std::string_view key, std::string_view value, std::string* to) {
  std::string entry;
  onnx::put_bytes(number::kKey, key, &entry);
  onnx::put_bytes(number::kValue, value, &entry);
  onnx::put_bytes(number::kExternalData, entry, to);
}

// A TensorProto; without data, one whose data the session's options hand over.
std::string tensor_proto(std::string_view name, const Weight& weight, const char* data) {
  std::string tensor;
  for (const int64_t size : weight.dims) onnx::put_integer(number::kDims, static_cast<uint64_t>(size), &tensor);
  onnx::put_integer(number::kDataType, static_cast<uint64_t>(weight.type), &tensor);
  onnx::put_bytes(number::kTensorName, name, &tensor);
  if (data) {
    onnx::put_bytes(number::kRawData, {data, static_cast<size_t>(weight.bytes())}, &tensor);
    return tensor;
  }
  put_entry("location", "decoded", &tensor);
  put_entry("offset", "0", &tensor);
  put_entry("length", std::to_string(weight.bytes()), &tensor);
  onnx::put_integer(number::kDataLocation, 1, &tensor);
  return tensor;
}

void write_result(tk_load* load, const std::vector<char*>& places) {
  std::vector<std::string> tensors;
  load->names.clear();
  load->numbers.clear();
  for (size_t i = 0; i < places.size(); ++i) {
    const Weight& weight = load->chains.weights[i];
    const std::string_view name = load->cut.graph.values[weight.name].name;
    const bool inside = load->is_inside(weight);
    tensors.push_back(tensor_proto(name, weight, inside ? places[i] : nullptr));
    if (inside) continue;
    load->names.append(name);
    load->numbers.insert(load->numbers.end(), {static_cast<int64_t>(name.size()), weight.type, load->offsets[i],
                                               static_cast<int64_t>(weight.dims.size())});
    load->numbers.insert(load->numbers.end(), weight.dims.begin(), weight.dims.end());
  }
  toolkit::load::write_rest(load->cut, tensors, &load->rest);
}

}  // namespace

extern "C" {

int32_t tk_load_open(const void* model, int64_t model_bytes, int64_t inside_bytes, int32_t threads, tk_load** load,
                     int64_t* memory_bytes) {
  if (!model || model_bytes < 0 || inside_bytes < 0 || threads < 0 || !load || !memory_bytes) return TK_ERR_ARGUMENT;
  return guarded([&]() -> int32_t {
    const std::string_view bytes(static_cast<const char*>(model), static_cast<size_t>(model_bytes));
    auto made = std::make_unique<tk_load>(bytes, inside_bytes, threads);
    lay_out(made.get());
    *memory_bytes = made->memory_bytes;
    *load = made.release();
    return TK_OK;
  });
}

void tk_load_close(tk_load* load) { delete load; }

int32_t tk_load_decode(tk_load* load, void* memory, int64_t memory_bytes, int32_t threads) {
  if (!load || threads < 0 || memory_bytes < load->memory_bytes) return TK_ERR_ARGUMENT;
  if (!memory && load->memory_bytes > 0) return TK_ERR_ARGUMENT;
  return guarded([&]() -> int32_t {
    std::vector<double> small(static_cast<size_t>(load->small_bytes) / sizeof(double));  // aligned for every type
    std::vector<char*> places;
    for (size_t i = 0; i < load->offsets.size(); ++i) {
      const bool inside = load->is_inside(load->chains.weights[i]);
      places.push_back((inside ? reinterpret_cast<char*>(small.data()) : static_cast<char*>(memory)) +
                       load->offsets[i]);
    }
    load->decoder.decode(places, threads);
    write_result(load, places);
    return static_cast<int64_t>(load->rest.size()) > kMostRest ? TK_ERR_ARGUMENT : TK_OK;
  });
}

int32_t tk_load_get_result(const tk_load* load, tk_load_result* result) {
  if (!load || !result) return TK_ERR_ARGUMENT;
  *result = {load->rest.data(),
             static_cast<int64_t>(load->rest.size()),
             load->names.data(),
             static_cast<int64_t>(load->names.size()),
             load->cut.keeps_external_data() ? 1 : 0,
             load->numbers.data(),
             static_cast<int64_t>(load->numbers.size())};
  return TK_OK;
}

}  // extern "C"
