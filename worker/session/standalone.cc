// SPDX-License-Identifier: Apache-2.0
#include "worker/session/standalone.h"

#include <fstream>
#include <sstream>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"
#include "worker/session/job_conversion.h"
#include "worker/session/report.h"
#include "worker/session/utf8.h"

namespace temper {
namespace {

// The observer's calls as lines of JSON.
class PrintingObserver : public TrainObserver {
 public:
  PrintingObserver(std::ostream& out, std::ostream& errors) : out_(out), errors_(errors) {}

  void OnPhase(TrainPhase phase, int64_t total_steps) override {
    Print({{"phase", v1::Phase_Name(PhaseReport(phase, total_steps).phase().phase())}, {"total_steps", total_steps}});
  }
  void OnStepBegun() override {}
  void OnStep(const StepMetrics& metrics) override {
    Print({{"step", metrics.step},
           {"total_steps", metrics.total_steps},
           {"loss", metrics.loss},
           {"grad_norm", metrics.grad_norm},
           {"learning_rate", metrics.learning_rate},
           {"tokens", metrics.tokens},
           {"scored_tokens", metrics.scored_tokens},
           {"total_tokens", metrics.total_tokens},
           {"padding_ratio", metrics.padding_ratio},
           {"seconds", metrics.seconds},
           {"mfu", metrics.mfu ? nlohmann::ordered_json(*metrics.mfu) : nlohmann::ordered_json()},
           {"hfu", metrics.hfu ? nlohmann::ordered_json(*metrics.hfu) : nlohmann::ordered_json()},
           {"peak_memory_bytes", metrics.peak_memory_bytes},
           {"epoch", metrics.epoch},
           {"phases",
            {{"data", metrics.phases.data},
             {"forward", metrics.phases.forward},
             {"backward", metrics.phases.backward},
             {"optimizer", metrics.phases.optimizer},
             {"communication", metrics.phases.communication},
             {"checkpoint", metrics.phases.checkpoint},
             {"other", metrics.phases.other}}},
           {"skipped", metrics.skipped},
           {"sent_bytes", metrics.sent_bytes},
           {"objective", metrics.objective}});
  }
  void OnPreflight(const PreflightReport& report) override {
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    std::string json;
    const auto printed = google::protobuf::util::MessageToJsonString(ToProto(report), &json, options);
    if (printed.ok()) Print({{"preflight", nlohmann::ordered_json::parse(json)}});
  }
  void OnData(const DataReport& report) override {
    Print({{"samples", report.samples.kept},
           {"tokens", report.samples.tokens},
           {"scored_tokens", report.samples.scored_tokens},
           {"data_share", report.data_share},
           {"validation_samples", report.validation_samples}});
  }
  void OnValidation(const ValidationReport& report) override {
    Print({{"validation_loss", report.loss},
           {"validated_step", report.step},
           {"scored_tokens", report.scored_tokens},
           {"seconds", report.seconds},
           {"best", report.best},
           {"objective", report.objective}});
  }
  void OnLog(LogSeverity severity, const std::string& text) override {
    errors_ << ReplaceInvalidUtf8(text) << std::endl;
  }
  void OnExport(const ExportSummary& exported) override {
    Print({{"export", exported.uri}, {"bytes", exported.bytes}, {"files", exported.files}});
  }
  void OnCheckpoint(const CheckpointReport& report) override {
    Print({{"checkpoint", report.uri},
           {"step", report.step},
           {"bytes", report.bytes},
           {"files", report.files},
           {"pause_seconds", report.pause_seconds},
           {"commit_seconds", report.commit_seconds},
           {"best", report.best}});
  }
  void OnCheckpointRemoved(int64_t step, int32_t epoch) override {
    Print({{"checkpoint_removed", step}, {"gang_epoch", epoch}});
  }
  void OnBackend(const std::string& backend, const std::string& reason) override {
    Print({{"backend", backend}, {"reason", reason}});
  }
  void OnResume(int64_t step, const std::string& uri, const std::vector<std::string>&) override {
    Print({{"resumed_after", step}, {"checkpoint", uri}});
  }

 private:
  // Whole lines at once, so that a reader of the pipe sees each as it happens.
  void Print(const nlohmann::ordered_json& line) {
    out_ << line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << std::endl;
  }

  std::ostream& out_;
  std::ostream& errors_;
};

absl::StatusOr<v1::JobSpec> ReadJobFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("job file ", path, " can't be read: give the path of a JobSpec as JSON"));
  }
  v1::JobSpec spec;
  const auto parsed = google::protobuf::util::JsonStringToMessage(text.str(), &spec);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("job file ", path, ": ", std::string(parsed.message())));
  }
  return spec;
}

absl::Status Train(const std::string& path, const std::string& job_id, const TrainFunction& train,
                   TrainObserver& observer) {
  const absl::StatusOr<v1::JobSpec> spec = ReadJobFile(path);
  if (!spec.ok()) return spec.status();
  const absl::StatusOr<TrainJob> job = TrainJobFromSpec(*spec, job_id, /*epoch=*/1);
  if (!job.ok()) return job.status();
  const StopSignal stop;
  return train(*job, observer, stop);
}

}  // namespace

int RunStandalone(const std::string& path, const std::string& job_id, const TrainFunction& train, std::ostream& out,
                  std::ostream& errors) {
  PrintingObserver observer(out, errors);
  const absl::Status status = Train(path, job_id, train, observer);
  if (status.ok()) return 0;
  errors << "temper-rank: " << FailureCauseName(CauseOf(status)) << ": "
         << ReplaceInvalidUtf8({status.message().data(), status.message().size()}) << std::endl;
  return 1;
}

}  // namespace temper
