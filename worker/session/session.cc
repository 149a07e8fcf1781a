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
  explicit ReportingObserver(NodeLink& link) : link_(link) {}
  void OnPhase(TrainPhase phase, int64_t total_steps) override { link_.Send(PhaseReport(phase, total_steps)); }
  void OnStep(const StepMetrics& metrics) override { link_.Send(StepReport(metrics)); }
  void OnLog(LogSeverity severity, const std::string& text) override { link_.Send(LogReport(severity, text)); }
  void OnExport(const std::string& uri, int64_t bytes, int32_t files) override {
    link_.Send(ExportReport(uri, bytes, files));
  }

 private:
  NodeLink& link_;
};

absl::Status Train(NodeLink& link, const TrainFunction& train) {
  const absl::StatusOr<v1::Assignment> assignment = link.WaitForAssignment();
  if (!assignment.ok()) return assignment.status();
  const absl::StatusOr<TrainJob> job = TrainJobFromSpec(assignment->spec(), assignment->job(), assignment->epoch());
  if (!job.ok()) return job.status();
  ReportingObserver observer(link);
  const absl::Status status = train(*job, observer, link.stop());
  // The trainer knows only that it was stopped; the link knows why.
  if (absl::IsCancelled(status) && link.stop()) return absl::CancelledError(link.stop_reason());
  return status;
}

}  // namespace

int RunSession(int fd, const TrainFunction& train) {
  NodeLink link(fd);
  absl::Status status;
  try {
    status = Train(link, train);
  } catch (const std::exception& error) {
    // The trainer is the barrier for exceptions. One that gets here is a bug, and worth more than a dead process.
    status = WithCause(absl::InternalError(absl::StrCat("an exception escaped from the trainer: ", error.what())),
                       FailureCause::kInternal);
  }
  link.Send(EndReport(status));
  return status.ok() || absl::IsCancelled(status) ? 0 : 1;
}

}  // namespace temper
