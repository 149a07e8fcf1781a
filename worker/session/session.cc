// SPDX-License-Identifier: Apache-2.0
#include "worker/session/session.h"

#include <deque>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/session/job_conversion.h"
#include "worker/session/node_link.h"
#include "worker/session/report.h"
#include "worker/session/stack_traces.h"

namespace temper {
namespace {

// Of a gang, rank 0 speaks for all: the others see the same. The server has been told of steps up to `current_step`, by
// earlier gangs.
class ReportingObserver : public TrainObserver {
 public:
  ReportingObserver(NodeLink& link, int32_t epoch, bool speaks, int64_t current_step)
      : link_(link), epoch_(epoch), speaks_(speaks), current_step_(current_step) {}
  void OnPhase(TrainPhase phase, int64_t total_steps) override { Send(PhaseReport(phase, total_steps)); }
  void OnPreflight(const PreflightReport& report) override { Send(PreflightReportReport(report)); }
  void OnData(const DataReport& report) override { Send(DataStatisticsReport(report)); }
  void OnValidation(const ValidationReport& report) override { Send(ValidationResultReport(report)); }
  void OnStepBegun() override { Send(StepBegunReport()); }
  void OnStep(const StepMetrics& metrics) override { SendStep(StepReport(metrics)); }
  void OnLog(LogSeverity severity, const std::string& text) override { Send(LogReport(severity, text)); }
  void OnExport(const ExportSummary& exported) override { Send(ExportReport(exported)); }
  void OnCheckpoint(const CheckpointReport& report) override { Send(CheckpointCommittedReport(report, epoch_)); }
  void OnCheckpointRemoved(int64_t step, int32_t epoch) override { Send(CheckpointRemovedReport(step, epoch)); }
  void OnBackend(const std::string& backend, const std::string& reason) override {
    Send(BackendReport(backend, reason));
  }
  void OnResume(int64_t step, const std::string& uri, const std::vector<std::string>& unheard) override {
    for (const std::string& json : unheard) {
      const v1::RankReport report = ReportFromJson(json);
      if (report.step().step() > current_step_) SendStep(report);
    }
    Send(ResumptionReport(step, uri));
  }
  std::vector<std::string> Unheard() override {
    ForgetHeard();
    std::vector<std::string> unheard;
    for (const v1::RankReport& report : unheard_) unheard.push_back(ReportToJson(report));
    return unheard;
  }

 private:
  void SendStep(const v1::RankReport& report) {
    Send(report);
    ForgetHeard();
    if (speaks_) unheard_.push_back(report);
  }
  void ForgetHeard() {
    while (!unheard_.empty() && unheard_.front().step().step() <= link_.heard_step()) unheard_.pop_front();
  }
  void Send(const v1::RankReport& report) {
    if (speaks_) link_.Send(report);
  }

  NodeLink& link_;
  const int32_t epoch_;
  const bool speaks_;
  const int64_t current_step_;
  std::deque<v1::RankReport> unheard_;  // of steps, oldest first
};

// Of a rank that is not alone.
std::optional<Rendezvous> RendezvousFrom(const v1::RankCommand& command) {
  if (!command.has_rendezvous()) return std::nullopt;
  const v1::Rendezvous& from = command.rendezvous();
  return Rendezvous{.rank = from.rank(),
                    .size = command.assignment().world_size(),
                    .per_node = command.assignment().ranks_per_node(),
                    .host = from.meeting().host(),
                    .port = static_cast<uint16_t>(from.meeting().port()),
                    .listen_fd = from.has_listen_fd() ? from.listen_fd() : -1,
                    .address = from.address()};
}

absl::Status Train(const v1::RankCommand& command, NodeLink& link, const RankTasks& tasks) {
  const v1::Assignment& assignment = command.assignment();
  absl::StatusOr<TrainJob> job = TrainJobFromSpec(assignment.spec(), assignment.job(), assignment.epoch());
  if (!job.ok()) return job.status();
  job->trust_remote_code = assignment.trust_remote_code();
  job->created = assignment.create_time().seconds();
  job->checkpoints.assign(assignment.checkpoints().begin(), assignment.checkpoints().end());
  job->rendezvous = RendezvousFrom(command);
  ReportingObserver observer(link, assignment.epoch(), /*speaks=*/!job->rendezvous || job->rendezvous->rank == 0,
                             assignment.current_step());
  return (assignment.preflight() ? tasks.preflight : tasks.train)(*job, observer, link.stop());
}

absl::Status Verify(const v1::Assignment& assignment, NodeLink& link, const RankTasks& tasks) {
  const v1::VerifyOptions& options = assignment.verify();
  const absl::StatusOr<PrintedVerdict> verdict =
      tasks.verify(assignment.spec().model().uri(),
                   {.dtype = options.dtype(), .layers = options.layers(), .gradients = options.gradients()});
  if (!verdict.ok()) return verdict.status();
  link.Send(VerdictReport(*verdict));
  return absl::OkStatus();
}

absl::Status DoAsAsked(NodeLink& link, const RankTasks& tasks) {
  const absl::StatusOr<v1::RankCommand> command = link.WaitForAssignment();
  if (!command.ok()) return command.status();
  const v1::Assignment& assignment = command->assignment();
  const absl::Status status = assignment.has_verify() ? Verify(assignment, link, tasks) : Train(*command, link, tasks);
  // The trainer knows only that it was stopped; the link knows why.
  if (absl::IsCancelled(status) && link.stop().requested()) return absl::CancelledError(link.stop_reason());
  return status;
}

}  // namespace

int RunSession(int fd, const RankTasks& tasks) {
  PrepareStackTraces();
  NodeLink link(fd, tasks.collectives);
  absl::Status status;
  try {
    status = DoAsAsked(link, tasks);
  } catch (const std::exception& error) {
    // The trainer is the barrier for exceptions. One that gets here is a bug, and worth more than a dead process.
    status = WithCause(absl::InternalError(absl::StrCat("an exception escaped from the trainer: ", error.what())),
                       FailureCause::kInternal);
  }
  link.Send(EndReport(status));
  return status.ok() || absl::IsCancelled(status) ? 0 : 1;
}

}  // namespace temper
