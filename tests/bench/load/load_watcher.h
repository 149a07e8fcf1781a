// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "temper/v1/training_service.grpc.pb.h"
#include "tests/bench/load/fake_gang.h"
#include "tests/bench/load/latencies.h"

namespace temper {

// Follows the job of a gang over a connection of its own. When the stream breaks it comes back with the sequence of the
// event that it saw last. Any thread.
class LoadWatcher {
 public:
  // A stream that has ended before the watcher wanted it to.
  struct Break {
    int64_t newest = 0;  // event that was seen by then
    grpc::StatusCode code = grpc::StatusCode::OK;
    std::string message;
  };

  // Events after `after_sequence`. `delays` gets the time from a rank's report to its event; both must outlive the
  // watcher. A watcher that is `held` opens its stream, over a connection that lets little through, but reads nothing.
  LoadWatcher(const std::string& address, const FakeGang& gang, int64_t after_sequence, Latencies& delays,
              bool held = false);
  // Ends the stream.
  ~LoadWatcher();

  // Watches if there is no stream; to be called again and again.
  void Connect();
  // From now on it reads. Once, of one that is held.
  void Release();

  const std::string& job() const { return gang_.job(); }
  int64_t first() const { return first_; }
  // The event that was seen last.
  int64_t newest() const;
  // Events whose sequence was not the next one.
  int64_t gaps() const;
  std::vector<Break> breaks() const;

 private:
  class Stream;

  const FakeGang& gang_;
  const int64_t first_;
  Latencies& delays_;
  const std::unique_ptr<v1::TrainingService::Stub> stub_;

  mutable std::mutex mutex_;
  std::condition_variable stream_ended_;
  // Guarded by mutex_:
  int64_t newest_;
  int64_t gaps_ = 0;
  std::vector<Break> breaks_;
  Stream* stream_ = nullptr;
  bool held_;
  bool closing_ = false;
};

}  // namespace temper
