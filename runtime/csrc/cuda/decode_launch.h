// What one launch of the wide decoder works on: plain structures, the same for the device and for the host's executor.
// SPDX-License-Identifier: Apache-2.0
//
// Everything here has been checked and laid out by the host (decode_plan.h). The only bytes that a device believes are
// code words and initial states, and no value of these can lead an index out of its range.
#ifndef TOOLKIT_CUDA_DECODE_LAUNCH_H
#define TOOLKIT_CUDA_DECODE_LAUNCH_H

#include <cstdint>

namespace toolkit::cuda {

// How the tables of a launch lie in memory; `slot` is one of 4096. warp_lookup.h says what entries are.
enum class Layout : int32_t {
  kDirect = 0,   // an entry for each slot: one load, 16 KiB a table
  kPaired = 1,   // a byte for each slot, its symbol, and an entry for each symbol: two loads, 4 KiB and the entries
  kBuckets = 2,  // a byte for every 16 slots, the entry of the first of them, and a search from there
  kGlobalBuckets = 3,  // the same, left in global memory because shared memory has no room
};
inline constexpr int kLayouts = 4;
inline constexpr int kWarpLanesOfBlock = 32;  // lanes of a block, threads of a warp
inline constexpr int kBucketSlots = 16;

// What becomes of symbols.
enum class OutKind : int32_t {
  kSymbols = 0,  // int8 or int16 as they are
  kFloat32 = 1,  // (symbol - zero point) * scale; ONNX's numbers of types
  kFloat16 = 10,
  kBfloat16 = 16,
  kLookup16 = 32,  // entry of a codebook, elements of 2 or 4 bytes
  kLookup32 = 33,
  kNothing = 64,  // symbols are decoded, and not written
};

enum class NumberType : int32_t { kNone = 0, kFloat32, kFloat16, kBfloat16, kInt8, kInt16, kInt32 };

// Division by a constant of numbers below 2^31: q = (n * multiplier) >> 31 >> shift.
struct Divider {
  uint32_t divisor = 1, multiplier = 0, shift = 0;
};

// Which scale belongs to which flat index i of a tensor.
enum class ScaleMap : int32_t {
  kOne = 0,     // scale 0
  kAxis = 1,    // (i / inner) % count
  kBlocks = 2,  // (i / (length * inner) * blocks + i / inner % length / block) * inner + i % inner
};

// How scales lie beside `width` symbols that begin at a multiple of `width`, the symbols of 16 bytes of the output.
// kLane: all symbols of a lane have the same.
enum class ScaleRun : int32_t { kSame = 0, kConsecutive = 1, kEach = 2, kLane = 3 };

struct Epilogue {
  OutKind kind = OutKind::kSymbols;
  NumberType scale_type = NumberType::kFloat32, zero_type = NumberType::kNone;
  ScaleMap map = ScaleMap::kOne;
  ScaleRun run = ScaleRun::kSame;
  int32_t vector = 0;       // 1: 16-byte stores are possible
  int32_t whole_tiles = 0;  // 1: and the scales and zero points are such as TileWriter takes
  Divider inner, count, length, block;
  uint32_t blocks = 1;
  int64_t num_entries = 0;  // of the codebook
  int64_t offset = 0;       // added to symbols
  const void* scales = nullptr;
  const void* zeros = nullptr;
  const void* codebook = nullptr;
};

// One tensor of a plan.
struct TensorJob {
  uint32_t size;  // symbols
  uint32_t rows, rows_per_lane, b, c;
  uint32_t num_lanes, lane_steps;      // symbols of a full lane
  uint32_t first_lane;                 // of the segment: states
  uint32_t class_a, class_b, class_c;  // where its class arrays begin, kNoClasses where absent
  int32_t base;
};
inline constexpr uint32_t kNoClasses = 0xffffffff;

// One block of 32 lanes.
struct BlockJob {
  uint32_t tensor;  // of the plan
  uint32_t lane;    // first lane, of the tensor
  uint32_t begin;   // first code word, of the segment
  uint32_t length;  // code words
};
static_assert(sizeof(BlockJob) == 16, "one load of 16 bytes");

// A symbol of a tensor that is replaced after decoding.
struct Patch {
  uint32_t flat;  // index among the tensor's symbols
  int32_t value;
};

// A tensor that a launch decodes: some of the plan's, each with an output of its own.
struct LaunchPart {
  Epilogue epilogue;
  void* out;
  uint32_t* status;     // gets a tk_status where decoding failed
  int64_t out_stride;   // from lane to lane of the output, in values
  uint32_t tensor;      // of the plan
  uint32_t end;         // blocks of the launch that belong to this part and those before it
  uint32_t blocks_at;   // added to the number of a block in the launch: its number in the plan, modulo 2^32
  uint32_t patches_at;  // in the plan
  uint32_t num_patches;
  uint32_t most_values;  // that are written, in the tensor's order
};
inline constexpr uint32_t kMostParts = 48;  // of a launch: 32 MiB of a small network's weights are a few dozen

// The class of a symbol chooses a record, a byte for each symbol that may stand before it: the number of the table. Of
// a trellis set two records follow each other, one for each quantiser. Without contexts a record is one byte.
inline constexpr int kMaxClassesOfSet = 64;

inline constexpr uint32_t kChunkWords = 128;  // code words that a warp loads at once, 8 bytes a lane
inline constexpr uint32_t kChunkBytes = 2 * kChunkWords;
inline constexpr uint32_t kRingBytes = 3 * kChunkBytes;  // two chunks, and the first once more behind the second
inline constexpr uint32_t kTileWords = 8;                // 32-bit words of symbols that a lane stages
inline constexpr uint32_t kTilePitch = kTileWords + 3;   // with a scale and a zero point; odd: lanes are in other banks
inline constexpr uint32_t kTileBytes = kWarpLanesOfBlock * kTilePitch * 4;
inline constexpr uint32_t kWarpBytes = kTileBytes + kRingBytes;

struct DecodeLaunch {
  // The plan's.
  const uint16_t* blob;  // 16-byte aligned, readable up to blob_units
  uint64_t blob_units;   // of four words
  uint64_t words_at;     // where code words begin, in words
  uint64_t states_at;    // where states begin, in words
  const BlockJob* blocks;
  const TensorJob* tensors;
  const int8_t* classes_of_axes;  // class arrays
  const uint8_t* tables;          // records, then tables
  const Patch* patches;
  uint32_t record_bytes, table_bytes;  // of all; both multiples of 16
  uint32_t record_stride;              // bytes from record to record
  uint32_t record_origin;              // where the byte of symbol 0 lies in a record
  uint32_t table_stride;               // bytes from table to table
  uint32_t entries_at;                 // where a table's entries begin, or that of symbol 0, in bytes of the table
  // The same for all tensors of a plan, so that the device branches on what all its threads share.
  int32_t classes;                     // of the set, M
  int32_t contexts, trellis, columns;  // 1 where there are contexts, trellis states, classes of columns
  int32_t low_bits;
  // The launch's own.
  uint32_t num_blocks;
  uint32_t num_parts;
  LaunchPart parts[kMostParts];
};
static_assert(sizeof(DecodeLaunch) <= 32764, "a kernel's parameters, since sm_70");

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_DECODE_LAUNCH_H
