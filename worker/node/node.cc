// SPDX-License-Identifier: Apache-2.0
#include "worker/node/node.h"

#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/fault_point.h"
#include "common/rpc/timestamp.h"
#include "spdlog/spdlog.h"
#include "worker/node/oom_kills.h"
#include "worker/node/rank_end.h"
#include "worker/node/thread_states.h"
#include "worker/session/utf8.h"

namespace temper {
namespace {

using std::chrono::steady_clock;

// What a platform gives a process between SIGTERM and SIGKILL is short: the server's acknowledgements are waited for
// this long after the ranks had their grace.
constexpr std::chrono::seconds kLastReports{5};

// With no server and no platform in a hurry, a checkpoint may take its time, but not forever.
constexpr std::chrono::minutes kAwayGrace(10);
// A node that looks at its ranks so much later than it meant to did not run itself.
constexpr std::chrono::seconds kLate(5);
constexpr std::chrono::milliseconds kNoLimit = std::chrono::milliseconds::max();

v1::Stop NewStop(const std::string& reason, bool checkpoint) {
  v1::Stop stop;
  stop.set_reason(ReplaceInvalidUtf8(reason));
  stop.set_checkpoint(checkpoint);
  return stop;
}

bool HasFailed(const v1::RankEnd& end) { return end.cause() != v1::FAILURE_CAUSE_UNSPECIFIED && !end.stopped(); }

v1::RankReport NewReport(int32_t rank) {
  v1::RankReport report;
  report.set_rank(rank);
  *report.mutable_time() = ToTimestamp(RealClock().Wall());
  return report;
}

}  // namespace

Node::Node(NodeOptions options, std::shared_ptr<grpc::Channel> server, v1::Hello hello, ServerLinkOptions link_options)
    : options_(std::move(options)), server_(std::move(server)), hello_(std::move(hello)), link_options_(link_options) {}

void Node::Terminate(const std::string& reason) { events_.Push(TerminateAsked{reason}); }

ExitRecord Node::Run() {
  if (hello_.node() == 0) {
    if (const absl::Status listening = listener_.emplace().Listen(options_.address); !listening.ok()) {
      return {NodeExit::kRankFailed, v1::FAILURE_CAUSE_LAUNCH, std::string(listening.message())};
    }
    hello_.mutable_meeting()->set_host(options_.address);
    hello_.mutable_meeting()->set_port(listener_->port());
  }
  link_ = std::make_unique<ServerLink>(server_, hello_, link_options_, LinkEvents());
  while (!Done()) {
    const TimePoint deadline = NextDeadline();
    if (std::optional<Event> event = events_.PopBefore(deadline)) {
      std::visit([this](const auto& happened) { On(happened); }, *event);
    }
    // Then this process was stopped as well, as by a debugger or a freezer.
    if (watch_ && steady_clock::now() - kLate > deadline) watch_->Restart(steady_clock::now());
    KillOverdueRanks();
    LookForHang();
  }
  const ExitRecord record = Record();
  link_->Close();
  return record;
}

ServerLink::Events Node::LinkEvents() {
  return {
      .on_assignment = [this](const v1::Assignment& assignment) { events_.Push(Assigned{assignment}); },
      .on_meeting = [this](const v1::Meeting& meeting) { events_.Push(AllNodesThere{meeting}); },
      .on_stop = [this](const v1::Stop& stop) { events_.Push(StopAsked{stop}); },
      .on_step_heard = [this](int64_t step) { events_.Push(StepHeard{step}); },
      .on_drained = [this] { events_.Push(Drained{}); },
      .on_lost = [this](const absl::Status& status) { events_.Push(ServerLost{status}); },
  };
}

// All but a rank's end goes straight to the link. The end waits until the process is gone, because that is what the
// server takes it for.
RankProcess::Events Node::RankEvents(size_t index) {
  const int32_t rank = ranks_[index].rank;
  return {
      .on_report =
          [this, index, rank](v1::RankReport report) {
            if (report.has_end()) {
              events_.Push(RankSaidEnd{index, report.end()});
              return;
            }
            if (TakeForNode(index, report)) return;
            FaultPoint("worker.report.received");
            report.set_rank(rank);
            if (report.has_log()) report.mutable_log()->set_rank(rank);
            link_->Report(std::move(report));
          },
      .on_line = [this, rank](v1::LogSeverity severity, const std::string& text) { Log(rank, severity, text); },
      .on_exit = [this, index](const RankExit& exit) { events_.Push(RankExited{index, exit}); },
  };
}

bool Node::TakeForNode(size_t index, const v1::RankReport& report) {
  if (report.has_stacks_dumped()) {
    events_.Push(RankDumpedStacks{index});
    return true;
  }
  if (index == 0) events_.Push(RankMadeProgress{HangWatch::SignOf(report)});
  return report.has_step_begun();
}

void Node::Log(int32_t rank, v1::LogSeverity severity, const std::string& text) {
  v1::RankReport report = NewReport(rank);
  report.mutable_log()->set_severity(severity);
  report.mutable_log()->set_text(ReplaceInvalidUtf8(text));
  report.mutable_log()->set_rank(rank);
  link_->Report(std::move(report));
}

void Node::On(const Assigned& event) {
  if (stop_reason_ || assignment_) return;
  assignment_ = event.assignment;
  if (!HasOtherNodes()) StartRanks(hello_.meeting());
}

void Node::On(const AllNodesThere& event) {
  if (!stop_reason_ && HasOtherNodes() && ranks_.empty()) StartRanks(event.meeting);
}

void Node::StartRanks(const v1::Meeting& meeting) {
  oom_kills_before_ = OomKills();
  const int32_t count = std::max(1, assignment_->ranks_per_node());
  ranks_.resize(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) {
    ranks_[i].rank = hello_.node() * count + i;
    if (const absl::Status started = StartRank(static_cast<size_t>(i), meeting); !started.ok()) {
      v1::RankEnd end;
      end.set_cause(v1::FAILURE_CAUSE_LAUNCH);
      end.set_message(ReplaceInvalidUtf8(std::string(started.message())));
      ReportEnd(ranks_[i], std::move(end));
    }
  }
  if (hello_.node() == 0) watch_.emplace(assignment_->spec().hang(), steady_clock::now());
  listener_.reset();
  if (failure_) StopOthers("a rank could not be started");
}

absl::Status Node::StartRank(size_t index, const v1::Meeting& meeting) {
  Rank& rank = ranks_[index];
  const int listener = HasSeveralRanks() && rank.rank == 0 ? listener_->fd() : -1;
  auto process = RankProcess::Start(options_.rank_binary, RankEvents(index), listener);
  if (!process.ok()) return process.status();
  rank.process = *std::move(process);
  rank.running = true;
  spdlog::info("rank {} runs as process {}", rank.rank, rank.process->pid());
  v1::RankCommand command;
  *command.mutable_assignment() = *assignment_;
  if (HasSeveralRanks()) {
    v1::Rendezvous& rendezvous = *command.mutable_rendezvous();
    rendezvous.set_rank(rank.rank);
    *rendezvous.mutable_meeting() = meeting;
    rendezvous.set_address(options_.address);
    if (listener >= 0) rendezvous.set_listen_fd(listener);
  }
  rank.process->Send(command);
  FaultPoint("worker.rank.started");
  return absl::OkStatus();
}

void Node::On(const StopAsked& event) {
  if (event.stop.dump_stacks() && !stop_reason_) AskForStacks();
  gang_lost_ = gang_lost_ || event.stop.gang_lost();
  StopRanks(event.stop, event.stop.checkpoint() ? kNoLimit : options_.stop_grace);
}

void Node::On(const TerminateAsked& event) {
  terminated_ = terminated_ || !stop_reason_;
  const auto grace = options_.checkpoint_grace;
  give_up_at_ = std::min(give_up_at_, steady_clock::now() + grace + kLastReports);
  StopRanks(NewStop(event.reason, /*checkpoint=*/true), grace);
}

void Node::On(const ServerLost& event) {
  lost_ = event.status;
  // A server that is away may come back to what was kept. One that refuses this node has another gang at work.
  const bool away = absl::IsUnavailable(event.status);
  StopRanks(NewStop(std::string(event.status.message()), away), away ? kAwayGrace : options_.stop_grace);
}

// Rank 0 tells of the steps.
void Node::On(const StepHeard& event) {
  if (!ranks_.front().running) return;
  v1::RankCommand command;
  command.mutable_step_heard()->set_step(event.step);
  ranks_.front().process->Send(command);
}

void Node::StopRanks(const v1::Stop& stop, std::chrono::milliseconds grace) {
  const bool overrules = !stop.checkpoint() && !stop_keeps_nothing_;
  const bool first = !stop_reason_;
  if (first) {
    stop_reason_ = stop.reason();
    spdlog::info("stopping: {}", stop.reason());
  }
  stop_keeps_nothing_ = stop_keeps_nothing_ || !stop.checkpoint();
  v1::RankCommand command;
  *command.mutable_stop() = stop;
  for (Rank& rank : ranks_) {
    if (!rank.running) continue;
    if ((first || overrules) && !rank.killed) rank.process->Send(command);
    if (grace < kNoLimit) rank.kill_at = std::min(rank.kill_at, steady_clock::now() + grace);
  }
}

void Node::KillOverdueRanks() {
  for (Rank& rank : ranks_) {
    if (!rank.running || rank.killed || steady_clock::now() < rank.kill_at) continue;
    spdlog::warn("rank {} did not end in time; killing it", rank.rank);
    rank.killed = true;
    rank.process->Kill();
  }
}

void Node::On(const RankMadeProgress& event) {
  if (watch_) watch_->Take(event.sign, steady_clock::now());
}

void Node::LookForHang() {
  const TimePoint now = steady_clock::now();
  // A gang that was told to stop has the limits of the stop.
  if (!watch_ || stop_reason_ || !RanksRunning()) return;
  if (!hang_) {
    if (now < watch_->deadline()) return;
    hang_ = watch_->Explain(now);
    Log(/*rank=*/-1, v1::LOG_SEVERITY_ERROR, absl::StrCat("the gang hangs: ", *hang_));
    AskForStacks();
    stacks_due_ = now + options_.stacks_grace;
  } else if (StacksDumped() || now >= stacks_due_) {
    EndHungGang();
  }
}

void Node::AskForStacks() {
  v1::RankCommand command;
  command.mutable_dump_stacks();
  for (const Rank& rank : ranks_) {
    if (rank.running) rank.process->Send(command);
  }
}

void Node::EndHungGang() {
  for (const Rank& rank : ranks_) {
    if (!rank.running || rank.dumped_stacks) continue;
    const std::string states = ThreadStates(rank.process->pid());
    Log(rank.rank, v1::LOG_SEVERITY_WARNING,
        absl::StrCat("rank ", rank.rank, " does not say what it is doing; the kernel says of its ", states));
    absl::StrAppend(&*hang_, "; rank ", rank.rank, " does not answer");
  }
  absl::StrAppend(&*hang_, "; what the ranks were doing is in the job's log");
  stop_reason_ = *hang_;
  spdlog::warn("the gang hangs, and is killed: {}", *hang_);
  for (Rank& rank : ranks_) {
    if (!rank.running) continue;
    rank.killed = true;
    rank.process->Kill();
  }
}

void Node::On(const RankSaidEnd& event) {
  Rank& rank = ranks_[event.index];
  rank.end = event.end;
  rank.kill_at = std::min(rank.kill_at, steady_clock::now() + options_.stop_grace);
}

void Node::On(const RankExited& event) {
  Rank& rank = ranks_[event.index];
  rank.running = false;
  const bool missed_another = MissedAnother(rank);
  rank.end = EndOf(rank, event.exit);
  const bool failed = HasFailed(*rank.end);
  if (failed) StopOthers(absl::StrCat("rank ", rank.rank, " has ended"));
  rank.held = gang_lost_ && (missed_another || !failed);
  if (!rank.held) ReportEnd(rank, *rank.end);
  if (!RanksRunning()) ReportHeldEnds();
}

void Node::ReportHeldEnds() {
  for (const bool failed : {true, false}) {
    for (Rank& rank : ranks_) {
      if (!rank.held || HasFailed(*rank.end) != failed) continue;
      rank.held = false;
      ReportEnd(rank, *rank.end);
    }
  }
}

bool Node::MissedAnother(const Rank& rank) const {
  return HasSeveralRanks() && rank.end && rank.end->cause() == v1::FAILURE_CAUSE_RANK_LOST;
}

void Node::StopOthers(const std::string& reason) {
  if (!RanksRunning()) return;
  gang_lost_ = gang_lost_ || !stop_reason_;
  StopRanks(NewStop(reason, /*checkpoint=*/false), options_.stop_grace);
}

v1::RankEnd Node::EndOf(const Rank& rank, const RankExit& exit) const {
  if (hang_ && stop_reason_ == hang_ && rank.killed) {
    v1::RankEnd end;
    end.set_cause(v1::FAILURE_CAUSE_HANG);
    end.set_message(*hang_);
    end.set_exit_status(-SIGKILL);
    return end;
  }
  const std::optional<int64_t> oom_kills = OomKills();
  v1::RankEnd end =
      rank.end ? *rank.end : ExplainDeath({exit, oom_kills && oom_kills_before_ && *oom_kills > *oom_kills_before_});
  // One that died by itself, after others have failed, may be why they did.
  const bool died = !rank.end && gang_lost_ && !rank.killed;
  if (stop_reason_ && !died && (!rank.end || MissedAnother(rank))) {
    end.set_stopped(true);
    end.clear_cause();
    if (rank.killed) end.set_message(absl::StrCat(*stop_reason_, " (temper-rank did not end in time and was killed)"));
  }
  if (end.stopped() && terminated_) end.set_cause(v1::FAILURE_CAUSE_PREEMPTED);
  return end;
}

void Node::ReportEnd(Rank& rank, v1::RankEnd end) {
  rank.end = end;
  if (HasFailed(end) && !failure_) failure_ = end;
  FaultPoint("worker.end.before_report");
  v1::RankReport report = NewReport(rank.rank);
  *report.mutable_end() = std::move(end);
  link_->Report(std::move(report));
}

bool Node::RanksRunning() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.running; });
}

bool Node::StacksDumped() const {
  return std::all_of(ranks_.begin(), ranks_.end(),
                     [](const Rank& rank) { return !rank.running || rank.dumped_stacks; });
}

bool Node::Done() const {
  if (RanksRunning()) return false;
  if (lost_ || steady_clock::now() >= give_up_at_) return true;
  if (ranks_.empty()) return stop_reason_.has_value();
  return link_->drained();
}

Node::TimePoint Node::NextDeadline() const {
  TimePoint deadline = TimePoint::max();
  if (watch_ && !stop_reason_) deadline = hang_ ? stacks_due_ : watch_->deadline();
  for (const Rank& rank : ranks_) {
    if (rank.running && !rank.killed) deadline = std::min(deadline, rank.kill_at);
  }
  return RanksRunning() ? deadline : give_up_at_;
}

ExitRecord Node::Record() const {
  if (lost_) {
    const std::string message(lost_->message());
    if (absl::IsUnavailable(*lost_)) return {NodeExit::kServerAway, v1::FAILURE_CAUSE_PREEMPTED, message};
    return {NodeExit::kRefused, v1::FAILURE_CAUSE_UNSPECIFIED, absl::StrCat("refused by the server: ", message)};
  }
  if (failure_) return {NodeExit::kRankFailed, failure_->cause(), failure_->message()};
  const bool all_ended_well = !ranks_.empty() && std::none_of(ranks_.begin(), ranks_.end(),
                                                              [](const Rank& rank) { return rank.end->stopped(); });
  if (!all_ended_well || !link_->drained()) {
    if (terminated_) return {NodeExit::kPreempted, v1::FAILURE_CAUSE_PREEMPTED, stop_reason_.value_or("")};
    return {NodeExit::kStopped, v1::FAILURE_CAUSE_UNSPECIFIED, stop_reason_.value_or("")};
  }
  return {};
}

}  // namespace temper
