// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load/load_watcher.h"

#include <utility>

#include "tests/bench/load/own_channel.h"

namespace temper {
namespace {

// Of a connection that lets little through: what a stream may send before somebody reads.
constexpr int kSmallWindow = 4096;

grpc::ChannelArguments Arguments(bool held) {
  grpc::ChannelArguments arguments;
  if (held) {
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kSmallWindow);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  }
  return arguments;
}

}  // namespace

class LoadWatcher::Stream final : public grpc::ClientReadReactor<v1::JobEvent> {
 public:
  explicit Stream(LoadWatcher& watcher) : watcher_(watcher) {}

  // With the watcher's mutex held.
  void Start() {
    request_.set_name("jobs/" + watcher_.job());
    request_.set_after_sequence(watcher_.newest_);
    context_.set_wait_for_ready(true);
    watcher_.stub_->async()->WatchJob(&context_, &request_, this);
    if (watcher_.held_) {
      AddHold();
    } else {
      StartRead(&event_);
    }
    StartCall();
  }

  // Of a watcher that was held.
  void Release() {
    StartRead(&event_);
    RemoveHold();
  }

  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    const auto now = std::chrono::steady_clock::now();
    if (const int64_t tick = FakeGang::TickOf(event_); tick > 0) {
      watcher_.delays_.Add(now - watcher_.gang_.TimeOf(tick));
    }
    {
      std::lock_guard lock(watcher_.mutex_);
      if (event_.sequence() != watcher_.newest_ + 1) ++watcher_.gaps_;
      watcher_.newest_ = event_.sequence();
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    std::lock_guard lock(watcher_.mutex_);
    if (!watcher_.closing_) {
      watcher_.breaks_.push_back({watcher_.newest_, status.error_code(), status.error_message()});
    }
    watcher_.stream_ = nullptr;
    watcher_.stream_ended_.notify_all();
    delete this;
  }

 private:
  LoadWatcher& watcher_;
  grpc::ClientContext context_;
  v1::WatchJobRequest request_;
  v1::JobEvent event_;
};

LoadWatcher::LoadWatcher(const std::string& address, const FakeGang& gang, int64_t after_sequence, Latencies& delays,
                         bool held)
    : gang_(gang),
      first_(after_sequence + 1),
      delays_(delays),
      stub_(v1::TrainingService::NewStub(OwnChannel(address, Arguments(held)))),
      newest_(after_sequence),
      held_(held) {}

LoadWatcher::~LoadWatcher() {
  Release();
  std::unique_lock lock(mutex_);
  closing_ = true;
  if (stream_ != nullptr) stream_->Cancel();
  stream_ended_.wait(lock, [this] { return stream_ == nullptr; });
}

void LoadWatcher::Connect() {
  std::lock_guard lock(mutex_);
  if (stream_ != nullptr || closing_) return;
  stream_ = new Stream(*this);  // deletes itself when it is done
  stream_->Start();
}

void LoadWatcher::Release() {
  std::lock_guard lock(mutex_);
  if (std::exchange(held_, false) && stream_ != nullptr) stream_->Release();
}

int64_t LoadWatcher::newest() const {
  std::lock_guard lock(mutex_);
  return newest_;
}

int64_t LoadWatcher::gaps() const {
  std::lock_guard lock(mutex_);
  return gaps_;
}

std::vector<LoadWatcher::Break> LoadWatcher::breaks() const {
  std::lock_guard lock(mutex_);
  return breaks_;
}

}  // namespace temper
