// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace temper {

class StreamLimiter;

// What a stream has while it is open: one of the places that its caller may take.
class StreamPlace {
 public:
  StreamPlace(StreamLimiter& limiter, std::string caller) : limiter_(limiter), caller_(std::move(caller)) {}
  ~StreamPlace();
  StreamPlace(const StreamPlace&) = delete;
  StreamPlace& operator=(const StreamPlace&) = delete;

 private:
  StreamLimiter& limiter_;
  const std::string caller_;
};

struct StreamLimit {
  std::string what;    // for messages: "uploads and downloads"
  int per_caller = 0;  // at a time
  int of_all = 0;      // at a time, of all callers together
  std::string option;  // that sets per_caller; empty: there is none
};

// How many streams of a kind may be open at a time. Any thread.
class StreamLimiter {
 public:
  explicit StreamLimiter(StreamLimit limit) : limit_(std::move(limit)) {}

  // A place for a stream of `caller`, free again once it is destroyed; that must be before this is.
  //
  // RESOURCE_EXHAUSTED (TOO_MANY_STREAMS), with the limit and its option.
  absl::StatusOr<std::unique_ptr<StreamPlace>> Enter(const std::string& caller);

 private:
  friend class StreamPlace;
  void Leave(const std::string& caller);

  const StreamLimit limit_;
  std::mutex mutex_;
  // Guarded by mutex_:
  std::map<std::string, int> open_;  // of callers that have any
  int all_ = 0;
};

// Those of a server (RpcServerOptions).
struct StreamLimiters {
  StreamLimiter watches;
  StreamLimiter transfers;
  StreamLimiter greetings;
};

}  // namespace temper
