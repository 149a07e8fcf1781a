// SPDX-License-Identifier: Apache-2.0
#include "worker/session/report.h"

#include "google/protobuf/util/time_util.h"
#include "worker/session/utf8.h"

namespace temper {
namespace {

v1::RankReport NewReport() {
  v1::RankReport report;
  *report.mutable_time() = google::protobuf::util::TimeUtil::GetCurrentTime();
  return report;
}

v1::Phase ToProto(TrainPhase phase) {
  switch (phase) {
    case TrainPhase::kPreparingData:
      return v1::PHASE_PREPARING_DATA;
    case TrainPhase::kLoadingModel:
      return v1::PHASE_LOADING_MODEL;
    case TrainPhase::kTraining:
      return v1::PHASE_TRAINING;
    case TrainPhase::kExporting:
      return v1::PHASE_EXPORTING;
    case TrainPhase::kVerifying:
      return v1::PHASE_VERIFYING;
  }
  return v1::PHASE_UNSPECIFIED;
}

v1::LogSeverity ToProto(LogSeverity severity) {
  switch (severity) {
    case LogSeverity::kInfo:
      return v1::LOG_SEVERITY_INFO;
    case LogSeverity::kWarning:
      return v1::LOG_SEVERITY_WARNING;
    case LogSeverity::kError:
      return v1::LOG_SEVERITY_ERROR;
  }
  return v1::LOG_SEVERITY_UNSPECIFIED;
}

}  // namespace

v1::FailureCause ToProto(FailureCause cause) {
  switch (cause) {
    case FailureCause::kNone:
      return v1::FAILURE_CAUSE_UNSPECIFIED;
    case FailureCause::kUserInput:
      return v1::FAILURE_CAUSE_USER_INPUT;
    case FailureCause::kNumerics:
      return v1::FAILURE_CAUSE_NUMERICS;
    case FailureCause::kOutOfMemory:
      return v1::FAILURE_CAUSE_OUT_OF_MEMORY;
    case FailureCause::kRankLost:
      return v1::FAILURE_CAUSE_RANK_LOST;
    case FailureCause::kPreempted:
      return v1::FAILURE_CAUSE_PREEMPTED;
    case FailureCause::kLaunch:
      return v1::FAILURE_CAUSE_LAUNCH;
    case FailureCause::kStorage:
      return v1::FAILURE_CAUSE_STORAGE;
    case FailureCause::kHang:
      return v1::FAILURE_CAUSE_HANG;
    case FailureCause::kInternal:
      return v1::FAILURE_CAUSE_INTERNAL;
  }
  return v1::FAILURE_CAUSE_INTERNAL;
}

v1::RankReport PhaseReport(TrainPhase phase, int64_t total_steps) {
  v1::RankReport report = NewReport();
  report.mutable_phase()->set_phase(ToProto(phase));
  report.mutable_phase()->set_total_steps(total_steps);
  return report;
}

v1::RankReport StepReport(const StepMetrics& metrics) {
  v1::RankReport report = NewReport();
  v1::StepMetrics& step = *report.mutable_step();
  step.set_step(metrics.step);
  step.set_loss(metrics.loss);
  step.set_grad_norm(metrics.grad_norm);
  step.set_learning_rate(metrics.learning_rate);
  step.set_tokens(metrics.tokens);
  step.set_scored_tokens(metrics.scored_tokens);
  step.set_padding_ratio(metrics.padding_ratio);
  step.set_seconds(metrics.seconds);
  step.set_mfu(metrics.mfu);
  step.set_hfu(metrics.hfu);
  step.set_peak_memory_bytes(metrics.peak_memory_bytes);
  step.set_total_tokens(metrics.total_tokens);
  step.set_epoch(metrics.epoch);
  step.set_total_steps(metrics.total_steps);
  return report;
}

v1::RankReport LogReport(LogSeverity severity, const std::string& text) {
  v1::RankReport report = NewReport();
  report.mutable_log()->set_severity(ToProto(severity));
  report.mutable_log()->set_text(ReplaceInvalidUtf8(text));
  return report;
}

v1::RankReport CheckpointCommittedReport(const CheckpointReport& checkpoint, int32_t epoch) {
  v1::RankReport report = NewReport();
  v1::CheckpointCommitted& committed = *report.mutable_checkpoint();
  committed.set_step(checkpoint.step);
  committed.set_epoch(epoch);
  committed.set_uri(ReplaceInvalidUtf8(checkpoint.uri));
  committed.set_bytes(checkpoint.bytes);
  committed.set_files(checkpoint.files);
  committed.set_pause_seconds(checkpoint.pause_seconds);
  committed.set_commit_seconds(checkpoint.commit_seconds);
  return report;
}

v1::RankReport CheckpointRemovedReport(int64_t step, int32_t epoch) {
  v1::RankReport report = NewReport();
  report.mutable_checkpoint_removed()->set_step(step);
  report.mutable_checkpoint_removed()->set_epoch(epoch);
  return report;
}

v1::RankReport ResumptionReport(int64_t step, const std::string& uri) {
  v1::RankReport report = NewReport();
  report.mutable_resumption()->set_step(step);
  report.mutable_resumption()->set_uri(ReplaceInvalidUtf8(uri));
  return report;
}

v1::RankReport ExportReport(const std::string& uri, int64_t bytes, int32_t files) {
  v1::RankReport report = NewReport();
  report.mutable_export_()->set_uri(ReplaceInvalidUtf8(uri));
  report.mutable_export_()->set_bytes(bytes);
  report.mutable_export_()->set_files(files);
  return report;
}

v1::RankReport EndReport(const absl::Status& status) {
  v1::RankReport report = NewReport();
  v1::RankEnd& end = *report.mutable_end();
  if (absl::IsCancelled(status)) {
    end.set_stopped(true);
  } else {
    end.set_cause(ToProto(CauseOf(status)));
  }
  end.set_message(ReplaceInvalidUtf8({status.message().data(), status.message().size()}));
  return report;
}

}  // namespace temper
