// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace temper {

// One upload or download, as the watch sees it.
class Transfer {
 public:
  virtual ~Transfer() = default;
  // Ends itself with `why` if it waits for its client, to send or to take something, since before `time`. On the
  // watch's thread, while others may be at work on the stream.
  virtual void EndIfWaitingSince(std::chrono::steady_clock::time_point time, const std::string& why) = 0;
};

// Ends transfers whose client does nothing for `limit`: each holds a place that others wait for. Owns them until they
// are done.
class TransferWatch {
 public:
  explicit TransferWatch(std::chrono::milliseconds limit);
  // When no transfer is left.
  ~TransferWatch();
  TransferWatch(const TransferWatch&) = delete;
  TransferWatch& operator=(const TransferWatch&) = delete;

  // Any thread.
  void Add(std::shared_ptr<Transfer> transfer);
  // Destroys it, unless the watch is at work on it: then a moment later.
  void Remove(Transfer* transfer);

 private:
  void Run();

  const std::chrono::milliseconds limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::map<Transfer*, std::shared_ptr<Transfer>> transfers_;
  bool closing_ = false;

  std::thread thread_;  // last: it uses everything above
};

}  // namespace temper
