// When the weights of a session are decoded ahead of their use, on a second stream: host code without CUDA.
// SPDX-License-Identifier: Apache-2.0
//
// The ops of a session that decode and run are its *places*. Neighbours in the order of use make *groups*, each of
// which is decoded at once, as one weight alone would leave most of a large device idle. Two buffers take turns: while
// the weights of one group are multiplied on the run's stream (main), those of the next are decoded into the other
// buffer on a second stream (side). What must come before what is said by events, so that the host never waits, and so
// that a capture of the main stream takes the side stream along and has it back before the run ends:
//
//   main: begin . decode 0 . use 0 . used[0] . wait decoded[1] . use 1 . used[1] . wait decoded[0] . use 2 ...
//   side: wait begin . decode 1 . decoded[1] . wait used[0] . decode 2 . decoded[0] . wait used[1] ...
#ifndef TOOLKIT_CUDA_PREFETCH_PLAN_H
#define TOOLKIT_CUDA_PREFETCH_PLAN_H

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace toolkit::cuda {

enum class Stream : int32_t { kMain = 0, kSide = 1 };

enum class Action : int32_t {
  kRecord = 0,  // event, on the stream
  kWait = 1,    // for the event, on the stream
  kDecode = 2,  // the weight of place `value` into the buffer, on the stream; neighbours of one group at once
  kUse = 3,     // the buffer holds the weight of place `value`: the product follows on the main stream
};

// Events: of a buffer that its weights are decoded, or used; and that the run begins.
inline constexpr int32_t kDecoded = 0, kUsed = 2, kBegin = 4, kEvents = 5;

struct PrefetchStep {
  Action action;
  Stream stream;
  int32_t index;  // of a buffer or an event
  int64_t value = 0;
  int64_t offset = 0;  // in the buffer, in bytes
};

inline constexpr int64_t kMostPlaces = 1 << 16;      // of a session
inline constexpr int64_t kWeightAlignment = 256;     // bytes
inline constexpr int64_t kEnoughBytes = 32LL << 20;  // float16 weights that keep a large device busy

struct PrefetchPlace {
  bool present = false;
  bool ahead = false;  // it can be decoded before its turn
  int64_t bytes = 0;
};

// Which places are decoded together, and where; does not change once made.
struct PrefetchSchedule {
  struct Group {
    size_t first, end;  // positions
    bool ahead;         // else of one place, which is decoded when it is used
    int64_t bytes;
  };
  std::vector<int64_t> places;   // by position
  std::vector<size_t> group_of;  // by position
  std::vector<int64_t> offsets;  // by position, in the group's buffer
  std::vector<Group> groups;

  // Bytes of a buffer, into which every other group comes.
  int64_t buffer_bytes(int32_t buffer) const;
};

// The places of a session and the order in which its runs use them. At first it is that of their numbers, so that the
// first run already takes the memory that a capture may not; where runs come otherwise, it is learnt from a whole run.
class PrefetchOrder {
 public:
  bool add(int64_t place, const PrefetchPlace& what);  // false where the place is taken
  void remove(int64_t place);                          // and decode nothing ahead any more
  // So many bytes of weights at most in a group, but always one weight; 0: a 16th of all, at most kEnoughBytes, but at
  // least a 32nd of all and the largest.
  void limit_groups(int64_t bytes);
  // Tells of a whole run; it counts where every place is in it once and no order is known.
  void learn(const std::vector<int64_t>& run);
  // A run that began with `first` came in another order: learn one, or where it was learnt decode nothing ahead any
  // more.
  void miss(int64_t first);
  // The place with which runs begin, where the order is to be learnt.
  int64_t first() const;
  // Null while the order is not known or there is only one place; the same object until it changes.
  std::shared_ptr<const PrefetchSchedule> schedule() const;
  // Bytes of the largest place.
  int64_t most_bytes() const;

 private:
  std::vector<int64_t> present() const;
  std::shared_ptr<const PrefetchSchedule> make_schedule() const;

  mutable std::mutex mutex_;
  std::vector<PrefetchPlace> places_;
  std::vector<int64_t> order_;
  int64_t group_bytes_ = 0;
  mutable std::shared_ptr<const PrefetchSchedule> schedule_;  // null: to be made
  bool learning_ = false, given_up_ = false;
  int64_t first_ = -1;
};

// The runs on one stream, one after the other. Not for several threads at once.
class PrefetchLane {
 public:
  explicit PrefetchLane(PrefetchOrder* order) : order_(order) {}
  // What to do when a place has its turn, up to its use. Where there is no kUse in it, the caller decodes the weight
  // itself, after these steps, and may do so in either buffer.
  std::vector<PrefetchStep> begin(int64_t place);
  // What to do behind its use.
  std::vector<PrefetchStep> end();
  // What to do where something failed in between: afterwards nothing is under way.
  std::vector<PrefetchStep> abandon();
  // What the steps of the last begin() are made by.
  const PrefetchSchedule* schedule() const { return known_.get(); }

 private:
  void join(std::vector<PrefetchStep>* steps);
  void decode(size_t group, Stream stream, std::vector<PrefetchStep>* steps);

  PrefetchOrder* order_;
  std::vector<int64_t> run_;  // while the order is not known: the places of the run, from its first on
  std::shared_ptr<const PrefetchSchedule> known_;
  int64_t next_ = -1;   // position whose turn is next; -1: no run is under way
  int64_t ahead_ = -1;  // group that is decoded ahead and not waited for
  bool used_[2] = {};   // whether an event says that the buffer is used
};

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_PREFETCH_PLAN_H
