// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load/fake_gang.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/bench/load/own_channel.h"

namespace temper {
namespace {

// What a rank has to say, in the length of a usual line.
std::string LineOf(int rank, int64_t tick) {
  return absl::StrCat("rank ", rank, ": gathered, computed, reduced; nothing unusual, and the loader keeps up; tick ",
                      tick);
}

v1::RankReport ReportOf(int rank, int64_t tick) {
  v1::RankReport report;
  report.set_rank(rank);
  report.set_sequence(tick);
  if (rank != 0) {
    report.mutable_log()->set_severity(v1::LOG_SEVERITY_INFO);
    report.mutable_log()->set_text(LineOf(rank, tick));
    report.mutable_log()->set_rank(rank);
    return report;
  }
  v1::StepMetrics& step = *report.mutable_step();
  step.set_step(tick);
  step.set_total_steps(1'000'000);
  step.set_loss(1 + 1.0 / static_cast<double>(tick));
  step.set_grad_norm(0.7);
  step.set_learning_rate(2e-4);
  step.set_tokens(4096);
  step.set_scored_tokens(1777);
  step.set_seconds(1);
  step.set_mfu(0.61);
  step.set_hfu(0.61);
  step.set_peak_memory_bytes(3'200'000'000);
  step.set_total_tokens(4096 * tick);
  step.mutable_phases()->set_forward(0.3);
  step.mutable_phases()->set_backward(0.65);
  step.mutable_phases()->set_optimizer(0.05);
  return report;
}

}  // namespace

// One stream: reads acknowledgements all the time, and writes one report after the other.
class FakeGang::Stream final : public grpc::ClientBidiReactor<v1::AttachRequest, v1::AttachResponse> {
 public:
  explicit Stream(FakeGang& gang) : gang_(gang) {}

  // With the gang's mutex held.
  void Start() {
    v1::Hello& hello = *request_.mutable_hello();
    hello.set_job("jobs/" + gang_.job_);
    hello.set_epoch(1);
    hello.set_token(gang_.token_);
    hello.set_incarnation("load");
    context_.set_wait_for_ready(true);
    gang_.stub_->async()->Attach(&context_, this);
    writing_ = true;
    StartWrite(&request_);
    StartRead(&response_);
    // One that Write() may add later keeps the stream alive until OnDone.
    AddHold();
    StartCall();
  }

  // With the gang's mutex held: sends what is there to be sent.
  void Write() {
    if (writing_ || !assigned_ || ended_ || !gang_.Next(*request_.mutable_report())) return;
    writing_ = true;
    StartWrite(&request_);
  }

  void Cancel() { context_.TryCancel(); }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(gang_.mutex_);
    writing_ = false;
    if (ok) Write();
  }

  void OnReadDone(bool ok) override {
    const TimePoint now = std::chrono::steady_clock::now();
    std::lock_guard lock(gang_.mutex_);
    if (!ok) {
      ended_ = true;
      RemoveHold();
      return;
    }
    if (response_.has_ack()) gang_.Take(response_.ack(), now);
    if (response_.has_assignment()) {
      assigned_ = true;
      gang_.next_ = *std::min_element(gang_.acknowledged_.begin(), gang_.acknowledged_.end()) * gang_.ranks_;
      Write();
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status&) override {
    std::lock_guard lock(gang_.mutex_);
    gang_.acknowledged_at_breaks_.push_back(gang_.acknowledged_);
    gang_.stream_ = nullptr;
    gang_.stream_ended_.notify_all();
    delete this;
  }

 private:
  FakeGang& gang_;
  grpc::ClientContext context_;
  v1::AttachRequest request_;
  v1::AttachResponse response_;
  bool writing_ = false;
  bool assigned_ = false;
  bool ended_ = false;
};

FakeGang::FakeGang(const std::string& address, std::string job, std::string token, int ranks,
                   Latencies& acknowledgements)
    : job_(std::move(job)),
      token_(std::move(token)),
      ranks_(ranks),
      acknowledgements_(acknowledgements),
      channel_(OwnChannel(address)),
      stub_(v1::WorkerService::NewStub(channel_)),
      acknowledged_(static_cast<size_t>(ranks), 0) {}

FakeGang::~FakeGang() {
  std::unique_lock lock(mutex_);
  closing_ = true;
  if (stream_ != nullptr) stream_->Cancel();
  stream_ended_.wait(lock, [this] { return stream_ == nullptr; });
}

void FakeGang::Tick(TimePoint now) {
  std::lock_guard lock(mutex_);
  times_.push_back(now);
  if (stream_ != nullptr) stream_->Write();
}

void FakeGang::Connect() {
  std::lock_guard lock(mutex_);
  if (stream_ != nullptr || closing_) return;
  stream_ = new Stream(*this);  // deletes itself when it is done
  stream_->Start();
}

bool FakeGang::Next(v1::RankReport& report) {
  if (next_ >= static_cast<int64_t>(times_.size()) * ranks_) return false;
  report = ReportOf(static_cast<int>(next_ % ranks_), next_ / ranks_ + 1);
  ++next_;
  return true;
}

void FakeGang::Take(const v1::Ack& ack, TimePoint now) {
  int64_t& newest = acknowledged_.at(static_cast<size_t>(ack.rank()));
  for (; newest < ack.sequence(); ++newest) acknowledgements_.Add(now - times_.at(static_cast<size_t>(newest)));
}

FakeGang::TimePoint FakeGang::TimeOf(int64_t tick) const {
  std::lock_guard lock(mutex_);
  return times_.at(static_cast<size_t>(tick - 1));
}

int64_t FakeGang::ticks() const {
  std::lock_guard lock(mutex_);
  return static_cast<int64_t>(times_.size());
}

std::vector<int64_t> FakeGang::acknowledged() const {
  std::lock_guard lock(mutex_);
  return acknowledged_;
}

bool FakeGang::all_acknowledged() const {
  std::lock_guard lock(mutex_);
  const auto all = static_cast<int64_t>(times_.size());
  return std::all_of(acknowledged_.begin(), acknowledged_.end(), [all](int64_t newest) { return newest == all; });
}

std::vector<std::vector<int64_t>> FakeGang::acknowledged_at_breaks() const {
  std::lock_guard lock(mutex_);
  return acknowledged_at_breaks_;
}

int64_t FakeGang::TickOf(const v1::JobEvent& event) {
  if (event.has_step()) return event.step().step();
  if (!event.has_log() || event.log().rank() < 0) return 0;
  const std::string& text = event.log().text();
  int64_t tick = 0;
  return absl::SimpleAtoi(text.substr(text.rfind(' ') + 1), &tick) ? tick : 0;
}

}  // namespace temper
