// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "temper/v1/training_service.grpc.pb.h"
#include "tests/bench/load/latencies.h"

namespace temper {

// Clients that come and go: each kind of call has a thread that makes one after the other at a fixed rate.
class Caller {
 public:
  // `job` is one that runs.
  Caller(const std::string& address, std::string job);
  ~Caller();

  // By method, since the last call.
  std::map<std::string, Latencies::Summary> Take();
  // Calls that failed, as text. When it has stopped.
  std::vector<std::string> Stop();

 private:
  // Calls `call` every `period` until the end; it returns an error's text.
  void Repeat(std::chrono::milliseconds period, std::function<grpc::Status()> call);
  grpc::Status CreateAndCancel();
  grpc::Status Get();
  grpc::Status List();
  grpc::Status ListOfOwner();
  // A call of `method`, timed.
  template <typename Call>
  grpc::Status Timed(const char* method, Call call);

  const std::string job_;
  const std::unique_ptr<v1::TrainingService::Stub> stub_;
  std::map<std::string, Latencies> latencies_;  // every method has its entry before the threads start
  std::mutex mutex_;
  std::vector<std::string> failures_;  // guarded by mutex_
  std::vector<std::string> created_;   // of CreateAndCancel's thread: not cancelled yet
  std::vector<std::jthread> threads_;  // last: they use everything above
};

}  // namespace temper
