// The C API of decoders on a device. SPDX-License-Identifier: Apache-2.0
#include <map>
#include <utility>

#include "cuda_api.h"
#include "device_blob.h"
#include "device_problem.h"
#include "output_request.h"
#include "wide_reader.h"

// A tensor of a blob, or its matrix of all symbols.
struct tk_cuda_decoder {
  std::shared_ptr<toolkit::cuda::DeviceBlob> blob;
  int64_t tensor = 0;  // -1: the matrix
};

namespace toolkit::cuda {
namespace {

// What becomes of one request, put to those of the same way of the same blob.
using Parts = std::map<std::pair<const DeviceBlob*, size_t>, std::vector<PartRequest>>;

}  // namespace
}  // namespace toolkit::cuda

using namespace toolkit::cuda;

int32_t tk_cuda_open(const tk_wide_reader* reader, int64_t tensor, int32_t device, int32_t layout,
                     tk_cuda_decoder** decoder) {
  if (!reader || !decoder || layout < -1 || layout >= kLayouts) return TK_ERR_ARGUMENT;
  const auto& s = reader->segment;
  if (tensor < -1 || tensor >= static_cast<int64_t>(s.tensors.size())) return TK_ERR_ARGUMENT;
  return guarded_on_device([&]() -> int32_t {
    const DeviceScope scope(device);
    *decoder = new tk_cuda_decoder{DeviceBlob::of(*reader, device, layout), tensor};
    return TK_OK;
  });
}

void tk_cuda_close(tk_cuda_decoder* decoder) { delete decoder; }

int32_t tk_cuda_verify(const tk_cuda_decoder* decoder) {
  if (!decoder) return TK_ERR_ARGUMENT;
  return guarded_on_device([&]() -> int32_t {
    const DeviceScope scope(decoder->blob->device());
    decoder->blob->verify();
    return tk_cuda_decoded(decoder);
  });
}

namespace {

// Adds the parts of a request; `clear` gets the requests whose output must be cleared before.
tk_status add_request(const tk_cuda_request& request, Parts* parts, bool* clear) {
  if (!request.decoder || !request.output || !request.out) return TK_ERR_ARGUMENT;
  const DeviceBlob& blob = *request.decoder->blob;
  const int64_t size = value_bytes(*request.output, blob.wide()), tensor = request.decoder->tensor;
  Epilogue epilogue;
  *clear = tensor < 0;
  if (tensor < 0) {
    if (request.output->kind != 0 || request.out_bytes != blob.matrix_values() * size) return TK_ERR_ARGUMENT;
    for (size_t way = 0; way < blob.ways().size(); ++way) {
      for (const PlannedTensor& planned : blob.ways()[way].plan.tensors) {
        char* const at = static_cast<char*>(request.out) + blob.place_in_matrix(planned.number) * size;
        (*parts)[{&blob, way}].push_back(
            blob.request_of(planned.number, at, blob.stride_in_matrix(), planned.job.size));
      }
    }
    return TK_OK;
  }
  const int64_t values = request.output->num_values;
  if (values < 1 || values > blob.size_of(tensor) || request.out_bytes != values * size) return TK_ERR_ARGUMENT;
  if (tk_status status = make_epilogue(*request.output, &epilogue)) return status;
  PartRequest part = blob.request_of(tensor, request.out, blob.stride_of(tensor), values);
  part.epilogue = epilogue;
  (*parts)[{&blob, blob.place_of(tensor).way}].push_back(part);
  return TK_OK;
}

}  // namespace

int32_t tk_cuda_decode_all(const tk_cuda_request* requests, int64_t count, void* stream) {
  if (!requests || count < 1) return TK_ERR_ARGUMENT;
  return guarded_on_device([&]() -> int32_t {
    Parts parts;
    auto* const on = static_cast<cudaStream_t>(stream);
    const bool known = requests[0].decoder != nullptr;
    const DeviceScope scope(known ? requests[0].decoder->blob->device() : 0);
    std::vector<const tk_cuda_request*> cleared;
    for (int64_t i = 0; i < count; ++i) {
      bool clear = false;
      if (tk_status status = add_request(requests[i], &parts, &clear)) return status;
      if (requests[i].decoder->blob->device() != requests[0].decoder->blob->device()) return TK_ERR_ARGUMENT;
      if (clear) cleared.push_back(&requests[i]);
    }
    for (const tk_cuda_request* request : cleared)
      check(cudaMemsetAsync(request->out, 0, static_cast<size_t>(request->out_bytes), on), "clearing");
    for (auto& [way, requested] : parts) way.first->launch(way.second, std::move(requested), on);
    return TK_OK;
  });
}

int32_t tk_cuda_decode(const tk_cuda_decoder* decoder, const tk_output* output, void* out, int64_t out_bytes,
                       void* stream) {
  const tk_cuda_request request{decoder, output, out, out_bytes};
  return tk_cuda_decode_all(&request, 1, stream);
}

int32_t tk_cuda_decoded(const tk_cuda_decoder* decoder) {
  if (!decoder) return TK_ERR_ARGUMENT;
  if (decoder->tensor >= 0) return decoder->blob->status(decoder->tensor);
  for (size_t i = 0; i < decoder->blob->num_tensors(); ++i)
    if (const tk_status status = decoder->blob->status(static_cast<int64_t>(i))) return status;
  return TK_OK;
}

int32_t tk_cuda_describe(const tk_cuda_decoder* decoder, tk_plan_info* info, int64_t* blob_bytes,
                         int64_t* image_bytes) {
  if (!decoder || !info || !blob_bytes || !image_bytes) return TK_ERR_ARGUMENT;
  *info = decoder->blob->describe(decoder->tensor);
  *blob_bytes = decoder->blob->word_bytes();
  *image_bytes = 0;
  for (const DeviceBlob::Way& way : decoder->blob->ways()) *image_bytes += static_cast<int64_t>(way.image->bytes());
  return TK_OK;
}
