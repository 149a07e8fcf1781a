// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/failure.h"
#include "temper/v1/worker_service.pb.h"
#include "worker/train/train_job.h"
#include "worker/verify/verify_command.h"

namespace temper {

// What the trainer says, as messages for the node. `time` is set; `rank` and `sequence` are the node's to give.
v1::RankReport PhaseReport(TrainPhase phase, int64_t total_steps);
v1::RankReport StepBegunReport();
v1::RankReport StepReport(const StepMetrics& metrics);
v1::RankReport LogReport(LogSeverity severity, const std::string& text);
v1::RankReport CheckpointCommittedReport(const CheckpointReport& report, int32_t epoch);
v1::PreflightReport ToProto(const PreflightReport& report);
v1::RankReport PreflightReportReport(const PreflightReport& report);
v1::RankReport VerdictReport(const PrintedVerdict& verdict);
v1::RankReport DataStatisticsReport(const DataReport& data);
v1::RankReport ValidationResultReport(const ValidationReport& validation);
v1::RankReport CheckpointRemovedReport(int64_t step, int32_t epoch);
v1::RankReport BackendReport(const std::string& backend, const std::string& reason);
v1::RankReport ResumptionReport(int64_t step, const std::string& uri);
v1::RankReport ExportReport(const ExportSummary& exported);

// A report as JSON, for a checkpoint to keep, and back; one that can't be read is empty.
std::string ReportToJson(const v1::RankReport& report);
v1::RankReport ReportFromJson(const std::string& json);

// The last report of a rank. OK: it did all that it was asked to; CANCELLED: it was told to stop; anything else: the
// status's cause (common/failure.h) and message.
v1::RankReport EndReport(const absl::Status& status);

v1::FailureCause ToProto(FailureCause cause);

}  // namespace temper
