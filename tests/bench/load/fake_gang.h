// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "temper/v1/worker_service.grpc.pb.h"
#include "tests/bench/load/latencies.h"

namespace temper {

// The node of a gang whose ranks do nothing but report: at each tick rank 0 a step, the others a line of log. As
// temper-worker does, it sends all over one stream, comes back when that breaks, and repeats what was not acknowledged.
// A rank's report of tick n has the sequence n. Any thread.
class FakeGang {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // `job` is its id. `acknowledgements` gets the time from a tick to the acknowledgement of each of its reports; it
  // must outlive the gang.
  FakeGang(const std::string& address, std::string job, std::string token, int ranks, Latencies& acknowledgements);
  // Ends the stream.
  ~FakeGang();

  const std::string& job() const { return job_; }

  // All ranks report now.
  void Tick(TimePoint now);
  // Attaches if there is no stream; to be called again and again.
  void Connect();

  // When the ranks reported for the n-th time.
  TimePoint TimeOf(int64_t tick) const;
  int64_t ticks() const;
  // By rank: the newest report that the server has acknowledged.
  std::vector<int64_t> acknowledged() const;
  bool all_acknowledged() const;
  // By stream that broke, by rank: what was acknowledged by then.
  std::vector<std::vector<int64_t>> acknowledged_at_breaks() const;

  // The tick that an event comes from; 0 for events of the server's own.
  static int64_t TickOf(const v1::JobEvent& event);

 private:
  class Stream;

  // With mutex_ held: the next report that is to be sent, if any.
  bool Next(v1::RankReport& report);
  void Take(const v1::Ack& ack, TimePoint now);

  const std::string job_;
  const std::string token_;
  const int ranks_;
  Latencies& acknowledgements_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;

  mutable std::mutex mutex_;
  std::condition_variable stream_ended_;
  // Guarded by mutex_:
  std::vector<TimePoint> times_;  // of ticks
  std::vector<int64_t> acknowledged_;
  std::vector<std::vector<int64_t>> acknowledged_at_breaks_;
  int64_t next_ = 0;  // report to be sent: (tick - 1) * ranks + rank
  Stream* stream_ = nullptr;
  bool closing_ = false;
};

}  // namespace temper
