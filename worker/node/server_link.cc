// SPDX-License-Identifier: Apache-2.0
#include "worker/node/server_link.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_point.h"
#include "common/rpc/keepalive.h"
#include "common/rpc/status.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "spdlog/spdlog.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Answers that no second attempt will change.
bool IsFinal(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status) || absl::IsFailedPrecondition(status) ||
         absl::IsNotFound(status) || absl::IsInvalidArgument(status) || absl::IsUnimplemented(status);
}

// A random part of the pause, so that the nodes of a gang do not come back all at once.
milliseconds Jittered(milliseconds pause) {
  thread_local std::minstd_rand generator{std::random_device{}()};
  return milliseconds(std::uniform_int_distribution<int64_t>(pause.count() / 2, pause.count())(generator));
}

}  // namespace

std::shared_ptr<grpc::Channel> ServerChannel(const std::string& server, milliseconds connect_limit) {
  grpc::ChannelArguments arguments;
  SetClientKeepalive({}, arguments);
  // The link's own back-off is the one that counts.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // How long an attempt may take, in spite of its name.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(connect_limit.count()));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // An HTTP proxy in the environment is for the internet, not for the gang.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
}

ServerLink::ServerLink(std::shared_ptr<grpc::Channel> channel, v1::Hello hello, ServerLinkOptions options,
                       Events events)
    : channel_(std::move(channel)),
      stub_(v1::WorkerService::NewStub(channel_)),
      hello_(std::move(hello)),
      options_(options),
      events_(std::move(events)),
      buffer_(options.buffer_bytes, options.window, clock_, -1 - hello_.node()),
      contact_(steady_clock::now()),
      thread_([this] { Run(); }) {}

ServerLink::~ServerLink() { Close(); }

void ServerLink::Report(v1::RankReport report) {
  std::lock_guard lock(mutex_);
  buffer_.Add(std::move(report));
  changed_.notify_all();
}

bool ServerLink::drained() const {
  std::lock_guard lock(mutex_);
  return buffer_.empty();
}

void ServerLink::Close() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    // A stream that has something left to say is cut: whoever closes has decided not to wait for it.
    if (context_ != nullptr && !buffer_.empty()) context_->TryCancel();
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void ServerLink::Run() {
  milliseconds backoff = options_.first_backoff;
  int64_t failures = 0;
  for (;;) {
    const absl::Status status = RunStream();
    std::unique_lock lock(mutex_);
    if (closing_) return;
    const auto now = steady_clock::now();
    if (attached_) {
      contact_ = now;
      backoff = options_.first_backoff;
    }
    absl::Status lost;
    if (IsFinal(status)) {
      lost = status;
    } else if (now - contact_ >= options_.absence_limit) {
      lost =
          absl::UnavailableError(absl::StrCat("the server was away for longer than ",
                                              options_.absence_limit.count() / 1000.0, " s; last: ", status.message()));
    }
    if (!lost.ok()) {
      lock.unlock();
      events_.on_lost(lost);
      return;
    }
    // Once for each time that the server goes away, not for each attempt.
    if (attached_ || failures++ == 0)
      spdlog::warn("the stream to the server ended ({}); trying again", status.ToString());
    lock.unlock();
    Pause(Jittered(backoff));
    backoff = std::min(backoff * 2, options_.last_backoff);
  }
}

void ServerLink::Pause(milliseconds pause) {
  // gRPC gets on with a connection while somebody waits for the channel. Otherwise it looks after it every 5 s only,
  // and a server that is back would go unnoticed for so long, or twice.
  constexpr milliseconds kLook{50};
  const auto end = steady_clock::now() + pause;
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(end - steady_clock::now());
    if (left.count() <= 0) return;
    {
      std::lock_guard lock(mutex_);
      if (closing_) return;
    }
    const gpr_timespec look = gpr_time_from_millis(std::min(left, kLook).count(), GPR_TIMESPAN);
    channel_->WaitForStateChange(channel_->GetState(/*try_to_connect=*/true), look);
  }
}

absl::Status ServerLink::RunStream() {
  grpc::ClientContext context;
  {
    std::lock_guard lock(mutex_);
    if (closing_) return absl::CancelledError("closed");
    context_ = &context;
    attached_ = false;
    broken_ = false;
    buffer_.Rewind();
  }
  const auto stream = stub_->Attach(&context);
  std::thread reader([this, &stream] { ReadAll(*stream); });
  WriteAll(context, *stream);
  reader.join();
  {
    std::lock_guard lock(mutex_);
    context_ = nullptr;
  }
  const grpc::Status status = stream->Finish();
  if (status.ok()) return absl::UnavailableError("the server ended the stream");
  return FromGrpcStatus(status);
}

void ServerLink::WriteAll(grpc::ClientContext& context,
                          grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>& stream) {
  v1::AttachRequest request;
  *request.mutable_hello() = hello_;
  if (!stream.Write(request)) return;
  const auto answer_deadline = steady_clock::now() + options_.answer_timeout;
  auto next_heartbeat = steady_clock::now() + options_.heartbeat_interval;

  std::unique_lock lock(mutex_);
  for (;;) {
    const bool was_attached = attached_;  // the deadline is another once the server has answered
    changed_.wait_until(lock, was_attached ? next_heartbeat : answer_deadline, [&] {
      return broken_ || closing_ || attached_ != was_attached || (attached_ && buffer_.HasNext());
    });
    if (broken_) return;
    if (closing_) break;
    const auto now = steady_clock::now();
    if (!attached_) {
      if (now < answer_deadline) continue;
      return context.TryCancel();
    }
    request.Clear();
    if (now >= next_heartbeat) {
      request.mutable_heartbeat();
      next_heartbeat = now + options_.heartbeat_interval;
    } else if (auto report = buffer_.Next()) {
      *request.mutable_report() = *std::move(report);
    } else {
      continue;
    }
    lock.unlock();
    const bool written = stream.Write(request);
    lock.lock();
    if (!written) return;
  }
  if (!buffer_.empty()) return context.TryCancel();
  lock.unlock();
  stream.WritesDone();
  lock.lock();
  // The server ends the stream when it has seen ours end; one that does not is not waited for.
  if (!changed_.wait_for(lock, std::chrono::seconds(2), [this] { return broken_; })) context.TryCancel();
}

void ServerLink::ReadAll(grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>& stream) {
  v1::AttachResponse response;
  while (stream.Read(&response)) Handle(response);
  std::lock_guard lock(mutex_);
  broken_ = true;
  changed_.notify_all();
}

void ServerLink::Handle(const v1::AttachResponse& response) {
  std::unique_lock lock(mutex_);
  contact_ = steady_clock::now();
  if (closing_) return;
  switch (response.message_case()) {
    case v1::AttachResponse::kAssignment: {
      attached_ = true;
      changed_.notify_all();
      const bool first = !std::exchange(has_assignment_, true);
      lock.unlock();
      if (first) events_.on_assignment(response.assignment());
      break;
    }
    case v1::AttachResponse::kAck: {
      FaultPoint("worker.report.acknowledged");
      const int64_t step = buffer_.Acknowledge(response.ack().rank(), response.ack().sequence());
      changed_.notify_all();  // the window may have opened
      const bool drained = buffer_.empty();
      lock.unlock();
      if (step > 0) events_.on_step_heard(step);
      if (drained) events_.on_drained();
      break;
    }
    case v1::AttachResponse::kStop:
      lock.unlock();
      events_.on_stop(response.stop());
      break;
    case v1::AttachResponse::kMeeting:
      lock.unlock();
      events_.on_meeting(response.meeting());
      break;
    case v1::AttachResponse::MESSAGE_NOT_SET:
      break;  // of a newer server
  }
}

}  // namespace temper
