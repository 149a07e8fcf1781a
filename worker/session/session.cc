// SPDX-License-Identifier: Apache-2.0
#include "worker/session/session.h"

#include <exception>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/session/job_conversion.h"
#include "worker/session/node_link.h"
#include "worker/session/report.h"

namespace temper {
namespace {

class ReportingObserver : public TrainObserver {
 public:
  ReportingObserver(NodeLink& link, int32_t epoch) : link_(link), epoch_(epoch) {}
  void OnPhase(TrainPhase phase, int64_t total_steps) override { link_.Send(PhaseReport(phase, total_steps)); }
  void OnPreflight(const PreflightReport& report) override { link_.Send(PreflightReportReport(report)); }
  void OnData(const DataReport& report) override { link_.Send(DataStatisticsReport(report)); }
  void OnValidation(const ValidationReport& report) override { link_.Send(ValidationResultReport(report)); }
  void OnStep(const StepMetrics& metrics) override { link_.Send(StepReport(metrics)); }
  void OnLog(LogSeverity severity, const std::string& text) override { link_.Send(LogReport(severity, text)); }
  void OnExport(const ExportSummary& exported) override { link_.Send(ExportReport(exported)); }
  void OnCheckpoint(const CheckpointReport& report) override { link_.Send(CheckpointCommittedReport(report, epoch_)); }
  void OnCheckpointRemoved(int64_t step, int32_t epoch) override { link_.Send(CheckpointRemovedReport(step, epoch)); }
  void OnResume(int64_t step, const std::string& uri) override { link_.Send(ResumptionReport(step, uri)); }

 private:
  NodeLink& link_;
  const int32_t epoch_;
};

absl::Status Train(const v1::Assignment& assignment, NodeLink& link, const RankTasks& tasks) {
  if (assignment.world_size() > 1) {
    return WithCause(absl::UnimplementedError(absl::StrCat("this temper-rank trains alone, but was made one of ",
                                                           assignment.world_size(), " ranks")),
                     FailureCause::kLaunch);
  }
  absl::StatusOr<TrainJob> job = TrainJobFromSpec(assignment.spec(), assignment.job(), assignment.epoch());
  if (!job.ok()) return job.status();
  job->created = assignment.create_time().seconds();
  job->checkpoints.assign(assignment.checkpoints().begin(), assignment.checkpoints().end());
  ReportingObserver observer(link, assignment.epoch());
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
  const absl::StatusOr<v1::Assignment> assignment = link.WaitForAssignment();
  if (!assignment.ok()) return assignment.status();
  const absl::Status status =
      assignment->has_verify() ? Verify(*assignment, link, tasks) : Train(*assignment, link, tasks);
  // The trainer knows only that it was stopped; the link knows why.
  if (absl::IsCancelled(status) && link.stop().requested()) return absl::CancelledError(link.stop_reason());
  return status;
}

}  // namespace

int RunSession(int fd, const RankTasks& tasks) {
  NodeLink link(fd);
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
