// The part of ONNX Runtime's C ABI that the op library uses, declared by slot number: no ONNX Runtime header is needed.
// SPDX-License-Identifier: Apache-2.0
//
// ONNX Runtime hands out its C API as a table of function pointers that is only ever appended to, so a slot never
// moves. Every slot used here stands in the table below and exists since API version 17 (ONNX Runtime 1.17), but for
// the one of version 18 that scratch memory on CUDA needs.
#ifndef TOOLKIT_ORT_ABI_H
#define TOOLKIT_ORT_ABI_H

#include <stddef.h>
#include <stdint.h>

extern "C" {
struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtTensorTypeAndShapeInfo;
struct OrtOpAttr;
struct OrtOp;
struct OrtAllocator;
struct OrtMemoryInfo;
struct OrtTypeInfo;

// The table of function pointers; read through Slot only.
struct OrtApi {
  void (*slots[1])(void);
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)(void);
};

// What a custom op is to ONNX Runtime. The order of the fields is the ABI.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};
}  // extern "C"

static_assert(offsetof(OrtCustomOp, CreateKernel) == sizeof(void*), "the version is padded to one pointer");
static_assert(sizeof(OrtCustomOp) == 26 * sizeof(void*), "one version and 25 function pointers");

namespace toolkit::ort {

inline constexpr uint32_t kApiVersion = 17;           // the lowest with every slot below
inline constexpr const char* kFirstRelease = "1.17";  // the ONNX Runtime release that brought it
inline constexpr uint32_t kAllocatorVersion = 18;     // has KernelInfoAllocator

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum AttributeType : int { kAttributeInt = 1, kAttributeInts = 2, kAttributeFloat = 3, kAttributeString = 5 };
// ONNXTensorElementDataType; the numbers are ONNX's own.
enum ElementType : int {
  kUndefined = 0,
  kFloat32 = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt64 = 7,
  kFloat16 = 10,
  kUint32 = 12,
  kBfloat16 = 16,
};

// One function of the API: its slot and its C type.
template <int kIndex, typename Function>
struct Slot {
  template <typename... Arguments>
  static auto call(const OrtApi* api, Arguments... arguments) {
    return reinterpret_cast<Function*>(api->slots[kIndex])(arguments...);
  }
};

// clang-format off
using CreateStatus              = Slot<0, OrtStatus*(int code, const char* text)>;
using GetErrorMessage           = Slot<2, const char*(const OrtStatus*)>;
using CreateCustomOpDomain      = Slot<26, OrtStatus*(const char* name, OrtCustomOpDomain**)>;
using CustomOpDomainAdd         = Slot<27, OrtStatus*(OrtCustomOpDomain*, const OrtCustomOp*)>;
using AddCustomOpDomain         = Slot<28, OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*)>;
using CreateTensorAsValue       = Slot<48, OrtStatus*(OrtAllocator*, const int64_t* dims, size_t rank, int type, OrtValue**)>;
using CreateTensorWithData      = Slot<49, OrtStatus*(const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* dims, size_t rank, int type, OrtValue**)>;
using GetTensorMutableData      = Slot<51, OrtStatus*(OrtValue*, void**)>;
using CastTypeInfoToTensorInfo  = Slot<55, OrtStatus*(const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo**)>;
using CreateTensorTypeAndShape  = Slot<57, OrtStatus*(OrtTensorTypeAndShapeInfo**)>;
using SetTensorElementType      = Slot<58, OrtStatus*(OrtTensorTypeAndShapeInfo*, int type)>;
using SetDimensions             = Slot<59, OrtStatus*(OrtTensorTypeAndShapeInfo*, const int64_t* dims, size_t rank)>;
using GetTensorElementType      = Slot<60, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int* type)>;
using GetDimensionsCount        = Slot<61, OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t* rank)>;
using GetDimensions             = Slot<62, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t* dims, size_t rank)>;
using GetSymbolicDimensions     = Slot<63, OrtStatus*(const OrtTensorTypeAndShapeInfo*, const char** names, size_t rank)>;
using GetTensorTypeAndShape     = Slot<65, OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**)>;
using CreateCpuMemoryInfo       = Slot<69, OrtStatus*(int allocator_type, int memory_type, OrtMemoryInfo**)>;
using AllocatorAlloc            = Slot<75, OrtStatus*(OrtAllocator*, size_t bytes, void**)>;
using AllocatorFree             = Slot<76, OrtStatus*(OrtAllocator*, void*)>;
using AllocatorGetInfo          = Slot<77, OrtStatus*(const OrtAllocator*, const OrtMemoryInfo**)>;
using KernelInfoGetFloat        = Slot<85, OrtStatus*(const OrtKernelInfo*, const char* name, float* value)>;
using KernelInfoGetInt64        = Slot<86, OrtStatus*(const OrtKernelInfo*, const char* name, int64_t* value)>;
using KernelInfoGetString       = Slot<87, OrtStatus*(const OrtKernelInfo*, const char* name, char* value, size_t* size)>;
using KernelContextInputCount   = Slot<88, OrtStatus*(const OrtKernelContext*, size_t*)>;
using KernelContextGetInput     = Slot<90, OrtStatus*(const OrtKernelContext*, size_t index, const OrtValue**)>;
using KernelContextGetOutput    = Slot<91, OrtStatus*(OrtKernelContext*, size_t index, const int64_t* dims, size_t rank, OrtValue**)>;
using ReleaseStatus             = Slot<93, void(OrtStatus*)>;
using ReleaseMemoryInfo         = Slot<94, void(OrtMemoryInfo*)>;
using ReleaseValue              = Slot<96, void(OrtValue*)>;
using ReleaseTypeInfo           = Slot<98, void(OrtTypeInfo*)>;
using ReleaseTensorTypeAndShape = Slot<99, void(OrtTensorTypeAndShapeInfo*)>;
using ReleaseCustomOpDomain     = Slot<101, void(OrtCustomOpDomain*)>;
using ReleaseAllocator          = Slot<132, void(OrtAllocator*)>;
using KernelInfoGetInt64Array   = Slot<163, OrtStatus*(const OrtKernelInfo*, const char* name, int64_t* values, size_t* count)>;
using KernelContextComputeStream = Slot<193, OrtStatus*(const OrtKernelContext*, void** stream)>;
using CreateOpAttr              = Slot<211, OrtStatus*(const char* name, const void* data, int size, int type, OrtOpAttr**)>;
using ReleaseOpAttr             = Slot<212, void(OrtOpAttr*)>;
using CreateOp                  = Slot<213, OrtStatus*(const OrtKernelInfo*, const char* name, const char* domain, int version, const char** type_names, const int* types, int num_types, const OrtOpAttr* const* attributes, int num_attributes, int num_inputs, int num_outputs, OrtOp**)>;
using InvokeOp                  = Slot<214, OrtStatus*(const OrtKernelContext*, const OrtOp*, const OrtValue* const* inputs, int num_inputs, OrtValue* const* outputs, int num_outputs)>;
using ReleaseOp                 = Slot<215, void(OrtOp*)>;
using KernelInfoInputTypeInfo   = Slot<234, OrtStatus*(const OrtKernelInfo*, size_t index, OrtTypeInfo**)>;
using HasSessionConfigEntry     = Slot<237, OrtStatus*(const OrtSessionOptions*, const char* key, int* present)>;
using GetSessionConfigEntry     = Slot<238, OrtStatus*(const OrtSessionOptions*, const char* key, char* value, size_t* size)>;
using KernelInfoGetNodeName     = Slot<244, OrtStatus*(const OrtKernelInfo*, char* name, size_t* size)>;
using KernelInfoConstantInput   = Slot<249, OrtStatus*(const OrtKernelInfo*, size_t index, int* is_constant, const OrtValue**)>;
using KernelContextAllocator    = Slot<253, OrtStatus*(const OrtKernelContext*, const OrtMemoryInfo*, OrtAllocator**)>;
using ShapeInferInputTypeShape  = Slot<268, OrtStatus*(const OrtShapeInferContext*, size_t index, OrtTensorTypeAndShapeInfo**)>;
using ShapeInferGetAttribute    = Slot<269, OrtStatus*(const OrtShapeInferContext*, const char* name, const OrtOpAttr**)>;
using ShapeInferSetOutput       = Slot<270, OrtStatus*(const OrtShapeInferContext*, size_t index, const OrtTensorTypeAndShapeInfo*)>;
using SetSymbolicDimensions     = Slot<271, OrtStatus*(OrtTensorTypeAndShapeInfo*, const char** names, size_t rank)>;
using ReadOpAttr                = Slot<272, OrtStatus*(const OrtOpAttr*, int type, void* data, size_t size, size_t* needed)>;
// Since version 18; has_version(kAllocatorVersion) says whether it is there. KernelContext_GetScratchBuffer beside it ends
// the process where there is not enough memory.
using KernelInfoAllocator       = Slot<278, OrtStatus*(const OrtKernelInfo*, int memory_type, OrtAllocator**)>;
// clang-format on

}  // namespace toolkit::ort

#endif  // TOOLKIT_ORT_ABI_H
