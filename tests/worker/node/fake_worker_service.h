// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "grpcpp/server.h"
#include "temper/v1/worker_service.grpc.pb.h"

namespace temper {

// A server for one node, on a port of loopback: keeps what it gets and does as the test says.
class FakeWorkerService : public v1::WorkerService::Service {
 public:
  explicit FakeWorkerService(v1::Assignment assignment);
  ~FakeWorkerService() override;

  std::string address() const { return address_; }

  // Cuts the stream, and refuses new connections until Start().
  void Shutdown();
  void Start();

  // From now on: whether reports are acknowledged; what Hello is answered with, if not with the assignment.
  void set_acknowledge(bool acknowledge);
  void set_refusal(grpc::Status refusal);
  void SendStop(const std::string& reason, bool checkpoint = false, bool dump_stacks = false, bool gang_lost = false);
  void SendMeeting(const v1::Meeting& meeting);

  // Blocks (at most 20 s, then the test fails) until `reached` is true of all reports so far; returns them. Repeated
  // reports are kept once.
  std::vector<v1::RankReport> WaitForReports(const std::function<bool(const std::vector<v1::RankReport>&)>& reached);
  // … until a rank has ended.
  std::vector<v1::RankReport> WaitForEnd();
  std::vector<v1::Hello> hellos() const;
  int heartbeats() const;
  int repeated() const;
  // Gaps in a rank's sequence numbers, which must not be.
  int gaps() const;
  void WaitFor(const std::function<bool()>& reached);  // called with the lock held: use the fields below

  grpc::Status Attach(grpc::ServerContext* context,
                      grpc::ServerReaderWriter<v1::AttachResponse, v1::AttachRequest>* stream) override;

  // Guarded by mutex_; public for WaitFor().
  std::vector<v1::Hello> hellos_;
  std::vector<v1::RankReport> reports_;
  int heartbeats_ = 0;

 private:
  void Take(const v1::RankReport& report);

  const v1::Assignment assignment_;
  std::string address_ = "127.0.0.1:0";
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool acknowledge_ = true;
  std::optional<grpc::Status> refusal_;
  int repeated_ = 0;
  int gaps_ = 0;
  std::map<int32_t, int64_t> last_sequence_;
  grpc::ServerReaderWriter<v1::AttachResponse, v1::AttachRequest>* stream_ = nullptr;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace temper
