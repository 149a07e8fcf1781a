// SPDX-License-Identifier: Apache-2.0
#include "worker/session/report.h"

#include "common/clock.h"
#include "common/rpc/timestamp.h"
#include "google/protobuf/util/json_util.h"
#include "worker/session/utf8.h"

namespace temper {
namespace {

v1::RankReport NewReport() {
  v1::RankReport report;
  *report.mutable_time() = ToTimestamp(RealClock().Wall());
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

v1::DataStatistics ToProto(const DataReport& data) {
  v1::DataStatistics statistics;
  statistics.set_samples_read(data.samples.read);
  statistics.set_samples_kept(data.samples.kept);
  statistics.set_samples_truncated(data.samples.truncated);
  statistics.set_samples_overlong(data.samples.dropped_overlong);
  statistics.set_samples_refused(data.samples.refused);
  statistics.set_tokens(data.samples.tokens);
  statistics.set_scored_tokens(data.samples.scored_tokens);
  statistics.set_rows_per_epoch(data.rows_per_epoch);
  statistics.set_padding_ratio(data.padding_ratio);
  statistics.set_data_share(data.data_share);
  statistics.set_validation_samples(data.validation_samples);
  return statistics;
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

v1::RankReport StepBegunReport() {
  v1::RankReport report;  // not passed on: nobody needs its time
  report.mutable_step_begun();
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
  if (metrics.mfu) step.set_mfu(*metrics.mfu);
  if (metrics.hfu) step.set_hfu(*metrics.hfu);
  step.set_peak_memory_bytes(metrics.peak_memory_bytes);
  step.set_total_tokens(metrics.total_tokens);
  step.set_epoch(metrics.epoch);
  step.set_total_steps(metrics.total_steps);
  v1::StepPhases& phases = *step.mutable_phases();
  phases.set_data(metrics.phases.data);
  phases.set_forward(metrics.phases.forward);
  phases.set_backward(metrics.phases.backward);
  phases.set_optimizer(metrics.phases.optimizer);
  phases.set_communication(metrics.phases.communication);
  phases.set_checkpoint(metrics.phases.checkpoint);
  phases.set_other(metrics.phases.other);
  step.set_skipped(metrics.skipped);
  for (const double seconds : metrics.rank_compute_seconds) {
    step.add_rank_compute_seconds(static_cast<float>(seconds));
  }
  step.set_sent_bytes(metrics.sent_bytes);
  step.mutable_objective()->insert(metrics.objective.begin(), metrics.objective.end());
  return report;
}

v1::RankReport DataStatisticsReport(const DataReport& data) {
  v1::RankReport report = NewReport();
  *report.mutable_data() = ToProto(data);
  return report;
}

v1::PreflightReport ToProto(const PreflightReport& report) {
  v1::PreflightReport proto;
  for (const PreflightSample& sample : report.samples) {
    v1::PreflightSample& shown = *proto.add_samples();
    shown.set_tokens(sample.tokens);
    shown.set_scored_tokens(sample.scored_tokens);
    shown.set_part(sample.part);
    for (const PreflightPiece& piece : sample.pieces) {
      v1::PreflightPiece& text = *shown.add_pieces();
      text.set_text(ReplaceInvalidUtf8(piece.text));
      text.set_scored(piece.scored);
    }
  }
  *proto.mutable_data() = ToProto(report.data);
  proto.set_total_steps(report.total_steps);
  proto.set_estimated_seconds(report.estimated_seconds);
  v1::MemoryEstimate& memory = *proto.mutable_memory();
  memory.set_weights(report.memory.weights);
  memory.set_gradients(report.memory.gradients);
  memory.set_optimizer(report.memory.optimizer);
  memory.set_activations(report.memory.activations);
  memory.set_data(report.memory.data);
  memory.set_process(report.memory.process);
  memory.set_snapshot(report.memory.snapshot);
  memory.set_total(report.memory.total());
  memory.set_available(report.memory.available);
  proto.set_backend(report.backend);
  proto.set_backend_reason(ReplaceInvalidUtf8(report.backend_reason));
  for (const PreflightCheck& check : report.checks) {
    v1::PreflightCheck& one = *proto.add_checks();
    one.set_severity(ToProto(check.severity));
    one.set_text(ReplaceInvalidUtf8(check.text));
  }
  return proto;
}

v1::RankReport PreflightReportReport(const PreflightReport& preflight) {
  v1::RankReport report = NewReport();
  *report.mutable_preflight() = ToProto(preflight);
  return report;
}

v1::RankReport VerdictReport(const PrintedVerdict& verdict) {
  v1::RankReport report = NewReport();
  v1::ModelVerdict& proto = *report.mutable_verdict();
  proto.set_passed(verdict.passed);
  for (const std::string& reason : verdict.reasons) proto.add_reasons(ReplaceInvalidUtf8(reason));
  proto.set_table(ReplaceInvalidUtf8(verdict.table));
  // The verifier's own JSON: it parses.
  (void)google::protobuf::util::JsonStringToMessage(verdict.json, proto.mutable_figures());
  return report;
}

v1::RankReport ValidationResultReport(const ValidationReport& validation) {
  v1::RankReport report = NewReport();
  v1::ValidationResult& result = *report.mutable_validation();
  result.set_step(validation.step);
  result.set_loss(validation.loss);
  result.set_scored_tokens(validation.scored_tokens);
  result.set_seconds(validation.seconds);
  result.set_best(validation.best);
  result.mutable_objective()->insert(validation.objective.begin(), validation.objective.end());
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
  committed.set_best(checkpoint.best);
  return report;
}

v1::RankReport CheckpointRemovedReport(int64_t step, int32_t epoch) {
  v1::RankReport report = NewReport();
  report.mutable_checkpoint_removed()->set_step(step);
  report.mutable_checkpoint_removed()->set_epoch(epoch);
  return report;
}

v1::RankReport BackendReport(const std::string& backend, const std::string& reason) {
  v1::RankReport report = NewReport();
  report.mutable_backend()->set_backend(backend);
  report.mutable_backend()->set_reason(ReplaceInvalidUtf8(reason));
  return report;
}

v1::RankReport ResumptionReport(int64_t step, const std::string& uri) {
  v1::RankReport report = NewReport();
  report.mutable_resumption()->set_step(step);
  report.mutable_resumption()->set_uri(ReplaceInvalidUtf8(uri));
  return report;
}

v1::RankReport ExportReport(const ExportSummary& exported) {
  v1::RankReport report = NewReport();
  v1::ExportCommitted& committed = *report.mutable_export_();
  committed.set_uri(ReplaceInvalidUtf8(exported.uri));
  committed.set_bytes(exported.bytes);
  committed.set_files(exported.files);
  // The exporter's own JSON: it parses.
  (void)google::protobuf::util::JsonStringToMessage(exported.proof, committed.mutable_proof());
  return report;
}

std::string ReportToJson(const v1::RankReport& report) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto printed = google::protobuf::util::MessageToJsonString(report, &json, options);
  return printed.ok() ? json : "{}";
}

v1::RankReport ReportFromJson(const std::string& json) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  v1::RankReport report;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &report, options);
  return parsed.ok() ? report : v1::RankReport();
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
