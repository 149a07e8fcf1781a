// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "common/clock.h"

namespace temper {

// A browser downloads a file by its address alone, without a token: so who may have a file gets an address that nobody
// can guess, for a while. Any thread.
class DownloadTickets {
 public:
  struct File {
    std::string parent;  // as v1::ReadArtifactRequest has it
    std::string path;
  };

  // `clock` must outlive it.
  explicit DownloadTickets(const Clock& clock) : clock_(clock) {}

  // 256 random bits in hex. Good for any number of requests, for downloads are interrupted and resumed; until nobody
  // has asked for it for ten minutes, or a day is over.
  std::string Issue(File file);
  std::optional<File> Find(const std::string& ticket);

 private:
  static constexpr std::chrono::minutes kLife{10};
  static constexpr std::chrono::hours kLongestLife{24};
  static constexpr size_t kMost = 4096;

  struct Issued {
    File file;
    MonotonicTime until;
    MonotonicTime end;  // `until` is no later, however often it is asked for
  };
  void ForgetOld();  // with mutex_ held

  const Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, Issued> issued_;  // guarded by mutex_
};

}  // namespace temper
