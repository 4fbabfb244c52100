// Objects that several owners share by a key, made when the first one asks and gone with the last.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WEAK_CACHE_H
#define TOOLKIT_WEAK_CACHE_H

#include <iterator>
#include <map>
#include <memory>
#include <mutex>

namespace toolkit {

template <class Key, class T>
class WeakCache {
 public:
  // The object of a key; make() returns a std::shared_ptr<T> where there is none, and may throw.
  template <class Make>
  std::shared_ptr<T> get(const Key& key, Make make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto entry = known_.begin(); entry != known_.end();)
      entry = entry->second.expired() ? known_.erase(entry) : std::next(entry);
    const auto found = known_.find(key);
    std::shared_ptr<T> object = found == known_.end() ? nullptr : found->second.lock();
    if (object == nullptr) {
      object = make();
      known_[key] = object;
    }
    return object;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::weak_ptr<T>> known_;
};

}  // namespace toolkit

#endif  // TOOLKIT_WEAK_CACHE_H
