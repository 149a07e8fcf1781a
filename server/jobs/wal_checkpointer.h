// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "server/sqlite/sqlite.h"

namespace temper {

// In pages of the database, of 4 KiB.
struct WalLimits {
  // So much of the log is worth the flushes.
  int pages = 1000;
  // While commits follow each other there is always something in the log that is not in the database yet, and it grows;
  // from here on they wait for once, and it begins anew.
  int most_pages = 16'000;
};

// Brings what commits have put into the write-ahead log into the database, on a thread and over a connection of its
// own. Left to itself SQLite does that in the middle of a commit, once in a thousand pages, and whoever commits then
// waits for two more flushes of the disk.
class WalCheckpointer {
 public:
  // `writer` is the only connection that writes, under `write_mutex`; both must outlive the checkpointer.
  WalCheckpointer(Sqlite& writer, std::mutex& write_mutex, std::unique_ptr<Sqlite> connection, WalLimits limits = {});
  ~WalCheckpointer();
  WalCheckpointer(const WalCheckpointer&) = delete;
  WalCheckpointer& operator=(const WalCheckpointer&) = delete;

 private:
  void Run();

  Sqlite& writer_;
  std::mutex& write_mutex_;
  const std::unique_ptr<Sqlite> connection_;
  const WalLimits limits_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  int pages_ = 0;  // in the log, as the newest commit left it; 0 once that was looked at
  bool closing_ = false;

  std::thread thread_;  // last: it uses everything above
};

}  // namespace temper
