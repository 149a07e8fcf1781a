// SPDX-License-Identifier: Apache-2.0
#include "server/api/worker_api.h"

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "common/rpc/status.h"

namespace temper {
namespace {

// Reports that wait for a commit before the stream is not read on.
constexpr size_t kMaxPending = 256;

// Commits begin so far apart at least: with many gangs each keeps the reports of several, and between two flushes there
// is time for others who wait for the disk.
constexpr std::chrono::milliseconds kPace{10};

}  // namespace

// One stream. Its reads, writes and commits go on independently, at most one of each; mutex_ guards what they share. No
// call to the controller is made with it held: the controller calls Send under a lock of its own.
class WorkerApi::Stream final : public grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse> {
 public:
  explicit Stream(WorkerApi& api) : api_(api) { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    absl::Status status;
    if (ok && !(request_.has_report() && attachment_)) status = Handle(request_);
    std::unique_lock lock(mutex_);
    reading_ = false;
    if (!ok) {
      closed_ = true;
    } else if (!status.ok()) {
      Fail(std::move(status));
    } else if (request_.has_report() && !ending_) {
      pending_.push_back(std::move(*request_.mutable_report()));
    }
    GoOn(lock);
  }

  void OnWriteDone(bool ok) override {
    std::unique_lock lock(mutex_);
    writing_ = false;
    if (!ok) closed_ = true;
    GoOn(lock);
  }

  void OnDone() override { delete this; }

  // On the committer's thread: what shall be kept, and then how that went.
  NodeReports TakeReports() {
    std::lock_guard lock(mutex_);
    return {*attachment_, std::exchange(pending_, {})};
  }
  void Kept(absl::StatusOr<std::vector<v1::Ack>> acks) {
    std::unique_lock lock(mutex_);
    committing_ = false;
    if (acks.ok()) {
      for (v1::Ack& ack : *acks) *outgoing_.emplace_back().mutable_ack() = std::move(ack);
    } else {
      Fail(acks.status());
    }
    GoOn(lock);
  }

 private:
  // What is neither a report nor too early for one.
  absl::Status Handle(const v1::AttachRequest& request) {
    if (!request.has_hello()) {
      if (!attachment_) return absl::InvalidArgumentError("the first message must be Hello");
      // A message of a newer node, too, at least shows that it lives.
      api_.controller_.Heartbeat(*attachment_);
      return absl::OkStatus();
    }
    if (attachment_) return absl::InvalidArgumentError("Hello was sent before");
    auto attachment =
        api_.controller_.AttachNode(request.hello(), [this](const v1::AttachResponse& command) { Send(command); });
    if (!attachment.ok()) return attachment.status();
    attachment_ = attachment->id;
    std::lock_guard lock(mutex_);
    // A command that came meanwhile stays behind the assignment, which is the first answer by contract.
    outgoing_.emplace_front().mutable_assignment()->Swap(&attachment->assignment);
    assigned_ = true;
    return absl::OkStatus();
  }

  void Send(const v1::AttachResponse& command) {
    std::lock_guard lock(mutex_);
    outgoing_.push_back(command);
    Write();
  }

  // With mutex_ held:
  void Fail(absl::Status status) {
    if (!ending_) ending_ = std::move(status);
  }

  void Write() {
    if (writing_ || !assigned_ || ending_ || outgoing_.empty()) return;
    writing_ = true;
    response_ = std::move(outgoing_.front());
    outgoing_.pop_front();
    StartWrite(&response_);
  }

  // Begins whatever can go on, or ends the stream when nothing is left: after an error at once, after the node has
  // closed its side (or is gone) when its reports are kept and it was told so (or can't be). Releases the lock.
  void GoOn(std::unique_lock<std::mutex>& lock) {
    if (finished_) return;
    if (!ending_) {
      if (!committing_ && !pending_.empty()) {
        committing_ = true;
        api_.Schedule(this);
      }
      Write();
      if (!reading_ && !closed_ && pending_.size() < kMaxPending) {
        reading_ = true;
        StartRead(&request_);
      }
    }
    if (committing_) return;
    if (!ending_ && (!closed_ || writing_)) return;
    finished_ = true;
    const absl::Status status = ending_.value_or(absl::OkStatus());
    ending_ = status;
    lock.unlock();
    // Before Finish: after it nobody may hold a pointer to this.
    if (attachment_) api_.controller_.DetachNode(*attachment_);
    api_.observer_("Attach", status);
    Finish(ToGrpcStatus(status));
  }

  WorkerApi& api_;
  // Of the read side; the committer reads attachment_ after the first report.
  v1::AttachRequest request_;
  std::optional<int64_t> attachment_;

  std::mutex mutex_;
  // Guarded by mutex_:
  std::vector<v1::RankReport> pending_;
  bool committing_ = false;
  bool reading_ = true;
  bool closed_ = false;  // nothing more comes, or nothing more gets through
  std::deque<v1::AttachResponse> outgoing_;
  v1::AttachResponse response_;  // on its way
  bool writing_ = false;
  bool assigned_ = false;
  std::optional<absl::Status> ending_;
  bool finished_ = false;
};

WorkerApi::WorkerApi(JobController& controller, const Guard& guard, RpcObserver observer)
    : controller_(controller), guard_(guard), observer_(std::move(observer)), committer_([this] { Run(); }) {}

WorkerApi::~WorkerApi() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  committer_.join();
}

grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* WorkerApi::Attach(
    grpc::CallbackServerContext* context) {
  using Reactor = grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>;
  return guard_.Pass(context, "/temper.v1.WorkerService/Attach", "", [this](const Identity&) -> Reactor* {
    return new Stream(*this);  // deletes itself when it is done
  });
}

void WorkerApi::Schedule(Stream* stream) {
  std::lock_guard lock(mutex_);
  ready_.push_back(stream);
  changed_.notify_all();
}

void WorkerApi::Commit(const std::vector<Stream*>& streams) {
  std::vector<NodeReports> reports;
  for (Stream* stream : streams) reports.push_back(stream->TakeReports());
  auto acks = controller_.HandleReports(reports);
  for (size_t i = 0; i < streams.size(); ++i) streams[i]->Kept(std::move(acks[i]));
}

void WorkerApi::Run() {
  auto next = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return closing_ || !ready_.empty(); });
    changed_.wait_until(lock, next, [this] { return closing_; });
    if (ready_.empty()) return;
    next = std::chrono::steady_clock::now() + kPace;
    const std::vector<Stream*> streams = std::exchange(ready_, {});
    lock.unlock();
    Commit(streams);
    lock.lock();
  }
}

}  // namespace temper
