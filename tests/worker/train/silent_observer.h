// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "worker/train/train_job.h"

namespace temper {

// Takes everything and does nothing; a test overrides what it looks at.
class SilentObserver : public TrainObserver {
 public:
  void OnPhase(TrainPhase, int64_t) override {}
  void OnData(const DataReport&) override {}
  void OnPreflight(const PreflightReport&) override {}
  void OnBackend(const std::string&, const std::string&) override {}
  void OnStepBegun() override {}
  void OnStep(const StepMetrics&) override {}
  void OnValidation(const ValidationReport&) override {}
  void OnLog(LogSeverity, const std::string&) override {}
  void OnExport(const ExportSummary&) override {}
  void OnCheckpoint(const CheckpointReport&) override {}
  void OnCheckpointRemoved(int64_t, int32_t) override {}
  void OnResume(int64_t, const std::string&, const std::vector<std::string>&) override {}
};

}  // namespace temper
