// SPDX-License-Identifier: Apache-2.0
#include "server/api/worker_api.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace temper {
namespace {

// Reports that wait for a commit before the stream is not read on.
constexpr size_t kMaxPending = 256;
constexpr size_t kMaxPendingBytes = 8 << 20;
// Answers that the node has not taken before its stream is not read on.
constexpr size_t kMaxOutgoing = 1024;

// Commits begin so far apart at least: with many gangs each keeps the reports of several, and between two flushes there
// is time for others who wait for the disk.
constexpr std::chrono::milliseconds kPace{10};

// Between two looks for streams that say nothing.
constexpr std::chrono::milliseconds kLongestLook{1000};

absl::Status Stopping() { return absl::UnavailableError("the server stops"); }

}  // namespace

// One stream. Its reads, writes and commits go on independently, at most one of each; mutex_ guards what they share. No
// call to the controller is made with it held: the controller calls Send under a lock of its own.
class WorkerApi::Stream final : public grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse> {
 public:
  // Keeps `greeting` until the node has said Hello.
  Stream(WorkerApi& api, grpc::CallbackServerContext* context, std::unique_ptr<StreamPlace> greeting)
      : api_(api), context_(context), greeting_(std::move(greeting)) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    absl::Status status;
    if (ok && !Heard() && !(request_.has_report() && attachment_)) status = Handle(request_);
    std::unique_lock lock(mutex_);
    reading_ = false;
    if (!ok) {
      closed_ = true;
    } else if (!status.ok()) {
      Fail(std::move(status));
    } else if (request_.has_report() && !ending_) {
      pending_bytes_ += request_.ByteSizeLong();
      pending_.push_back(std::move(*request_.mutable_report()));
    }
    GoOn(lock);
  }

  void OnWriteDone(bool ok) override {
    std::unique_lock lock(mutex_);
    writing_since_.reset();
    if (!ok) closed_ = true;
    GoOn(lock);
  }

  void OnDone() override { api_.Forget(this); }

  // On the committer's thread: ends a stream that has been waiting for too long: for the node to say something, or to
  // take what was said.
  void EndIfSilent(std::chrono::steady_clock::time_point now) {
    std::unique_lock lock(mutex_);
    const std::chrono::milliseconds limit = assigned_ ? api_.silence_.attached : api_.silence_.greeting;
    if (writing_since_ && now - *writing_since_ > limit) {
      Fail(absl::DeadlineExceededError(absl::StrCat("the node has taken no answer within ", limit.count(), " ms")));
      // A status would wait behind the answer. What is being written ends now, and OnWriteDone() the stream.
      return context_->TryCancel();
    }
    if (!waiting_since_ || ending_ || now - *waiting_since_ <= limit) return;
    Fail(absl::DeadlineExceededError(
        absl::StrCat("no ", assigned_ ? "word" : "Hello", " from the node within ", limit.count(), " ms")));
    GoOn(lock);
  }

  // Any thread.
  void EndWith(absl::Status status) {
    std::unique_lock lock(mutex_);
    Fail(std::move(status));
    // Not while a message is dealt with, after which it ends by itself.
    if (!reading_ || waiting_since_) GoOn(lock);
  }

  // On the committer's thread: what shall be kept, and then how that went.
  NodeReports TakeReports() {
    std::lock_guard lock(mutex_);
    pending_bytes_ = 0;
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
  // The node has said something. True: too late, the stream ends.
  bool Heard() {
    std::lock_guard lock(mutex_);
    waiting_since_.reset();
    return ending_.has_value();
  }

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
    greeting_.reset();
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

  bool HasRoom() const {
    return pending_.size() < kMaxPending && pending_bytes_ < kMaxPendingBytes && outgoing_.size() < kMaxOutgoing;
  }

  void Write() {
    if (writing_since_ || !assigned_ || ending_ || outgoing_.empty()) return;
    writing_since_ = std::chrono::steady_clock::now();
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
      if (!reading_ && !closed_ && HasRoom()) {
        reading_ = true;
        waiting_since_ = std::chrono::steady_clock::now();
        StartRead(&request_);
      }
    }
    if (committing_) return;
    if (!ending_ && (!closed_ || writing_since_)) return;
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
  grpc::CallbackServerContext* const context_;
  // Of the read side; the committer reads attachment_ after the first report.
  v1::AttachRequest request_;
  std::optional<int64_t> attachment_;
  std::unique_ptr<StreamPlace> greeting_;

  std::mutex mutex_;
  // Guarded by mutex_:
  std::vector<v1::RankReport> pending_;
  size_t pending_bytes_ = 0;
  bool committing_ = false;
  bool reading_ = true;  // or the message that came is not dealt with yet
  // For the node to say something; none while it has.
  std::optional<std::chrono::steady_clock::time_point> waiting_since_ = std::chrono::steady_clock::now();
  bool closed_ = false;  // nothing more comes, or nothing more gets through
  std::deque<v1::AttachResponse> outgoing_;
  v1::AttachResponse response_;                                         // on its way
  std::optional<std::chrono::steady_clock::time_point> writing_since_;  // an answer is on its way
  bool assigned_ = false;
  std::optional<absl::Status> ending_;
  bool finished_ = false;
};

WorkerApi::WorkerApi(JobController& controller, const Guard& guard, StreamLimiter& greetings, NodeSilence silence,
                     RpcObserver observer)
    : controller_(controller),
      guard_(guard),
      greetings_(greetings),
      silence_(silence),
      observer_(std::move(observer)),
      committer_([this] { Run(); }) {}

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
  const auto open = [this, context](std::unique_ptr<StreamPlace> greeting) -> Reactor* {
    std::lock_guard lock(mutex_);
    const auto stream = std::make_shared<Stream>(*this, context, std::move(greeting));
    streams_[stream.get()] = stream;
    if (stopping_) stream->EndWith(Stopping());
    return stream.get();
  };
  return guard_.PassStream(context, "/temper.v1.WorkerService/Attach", "", greetings_, open);
}

template <typename Function>
void WorkerApi::ForEachStream(std::unique_lock<std::mutex>& lock, Function function) {
  std::map<Stream*, std::shared_ptr<Stream>> streams = streams_;
  lock.unlock();
  for (const auto& [_, stream] : streams) function(*stream);
  streams.clear();  // the last of some
  lock.lock();
}

void WorkerApi::EndStreams() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  ForEachStream(lock, [](Stream& stream) { stream.EndWith(Stopping()); });
}

void WorkerApi::Forget(Stream* stream) {
  std::unique_lock lock(mutex_);
  const auto forgotten = streams_.extract(stream);
  lock.unlock();  // before it is destroyed
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
  using std::chrono::steady_clock;
  const auto look_interval =
      std::clamp(std::min(silence_.greeting, silence_.attached) / 4, std::chrono::milliseconds(1), kLongestLook);
  auto next_commit = steady_clock::now();
  auto next_look = next_commit + look_interval;
  std::unique_lock lock(mutex_);
  while (!closing_ || !ready_.empty()) {
    changed_.wait_until(lock, next_look, [this] { return closing_ || !ready_.empty(); });
    if (!ready_.empty()) {
      changed_.wait_until(lock, next_commit, [this] { return closing_; });
      next_commit = steady_clock::now() + kPace;
      const std::vector<Stream*> streams = std::exchange(ready_, {});
      lock.unlock();
      Commit(streams);
      lock.lock();
    }
    if (steady_clock::now() < next_look) continue;
    const auto now = steady_clock::now();
    ForEachStream(lock, [now](Stream& stream) { stream.EndIfSilent(now); });
    next_look = steady_clock::now() + look_interval;
  }
}

}  // namespace temper
