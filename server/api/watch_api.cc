// SPDX-License-Identifier: Apache-2.0
#include "server/api/watch_api.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace temper {
namespace {

using std::chrono::steady_clock;

// Events that are read from the store at a time.
constexpr size_t kPageSize = 64;

// One stream. At any time one party has its turn: a callback of gRPC, the hub, or nobody while an event is being
// written or the watcher waits. Whoever has it goes on with Proceed(), and only in a turn the stream is ended.
class WatchStream final : public grpc::ServerWriteReactor<v1::JobEvent>, public Watcher {
 public:
  WatchStream(const JobController& controller, WatchHub& hub, const RpcObserver& observer,
              grpc::CallbackServerContext* context, const v1::WatchJobRequest& request,
              std::unique_ptr<StreamPlace> place)
      : controller_(controller),
        hub_(hub),
        observer_(observer),
        context_(context),
        place_(std::move(place)),
        job_(request.name()),
        after_(request.after_sequence()) {}

  void Start() {
    hub_.Add(this, job_);
    Proceed();
  }

  void OnWriteDone(bool ok) override {
    writing_since_ = steady_clock::time_point();
    if (!ok) return End(absl::CancelledError("the client has gone"));
    Proceed();
  }
  void OnCancel() override {
    if (hub_.Cancel(this)) End(absl::CancelledError("the client has gone"));
  }
  void OnDone() override {
    hub_.Remove(this);
    delete this;
  }

  void Wake() override { Proceed(); }
  steady_clock::time_point WritingSince() const override { return writing_since_; }
  void TooSlow() override { too_slow_ = true; }
  void CutOff() override { context_->TryCancel(); }

 private:
  void Proceed() {
    for (;;) {
      if (too_slow_) {
        return End(WithReason(absl::ResourceExhaustedError(absl::StrCat(
                                  "this reader is too slow; watch again after sequence ", after_, " to go on")),
                              "SLOW_WATCHER"));
      }
      if (hub_.stopping()) return End(absl::UnavailableError("the server is stopping"));
      if (next_ < page_.events.size()) return WriteNext();
      if (page_.complete) return End(absl::OkStatus());
      if (std::exchange(caught_up_, false)) {
        switch (hub_.Wait(this, after_)) {
          case WatchHub::WaitResult::kWaiting:
            return;  // `this` may be gone
          case WatchHub::WaitResult::kCancelled:
            return End(absl::CancelledError("the client has gone"));
          case WatchHub::WaitResult::kStopping:
            continue;
          case WatchHub::WaitResult::kNews:
            break;
        }
      }
      auto page = controller_.Events(job_, after_, kPageSize);
      if (!page.ok()) return End(page.status());
      page_ = *std::move(page);
      next_ = 0;
      // What came after a page that is not full, the hub knows of.
      caught_up_ = page_.events.size() < kPageSize;
    }
  }

  void WriteNext() {
    const v1::JobEvent& event = page_.events[next_++];
    after_ = event.sequence();
    writing_since_ = steady_clock::now();
    StartWrite(&event);
  }

  void End(const absl::Status& status) {
    observer_("WatchJob", status);
    Finish(ToGrpcStatus(status));
  }

  const JobController& controller_;
  WatchHub& hub_;
  const RpcObserver& observer_;
  grpc::CallbackServerContext* const context_;
  const std::unique_ptr<StreamPlace> place_;
  const std::string job_;
  int64_t after_;  // the newest event that was written
  EventPage page_;
  size_t next_ = 0;         // in page_
  bool caught_up_ = false;  // page_ ends with the newest event, or it was the newest
  std::atomic<steady_clock::time_point> writing_since_{steady_clock::time_point()};
  std::atomic<bool> too_slow_{false};
};

}  // namespace

grpc::ServerWriteReactor<v1::JobEvent>* WatchApi::Watch(grpc::CallbackServerContext* context,
                                                        const v1::WatchJobRequest& request,
                                                        std::unique_ptr<StreamPlace> place) {
  // Deletes itself when it is done.
  auto* stream = new WatchStream(controller_, hub_, observer_, context, request, std::move(place));
  stream->Start();
  return stream;
}

}  // namespace temper
