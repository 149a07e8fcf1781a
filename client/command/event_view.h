// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "client/command/terminal.h"
#include "client/command/training_progress.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// Shows the events of one job as they come: lines that stay, and on a terminal one that is redrawn with the progress of
// the training instead of a line per step. One thread.
class EventView {
 public:
  explicit EventView(const Terminal& terminal) : terminal_(terminal), status_(terminal) {}

  void Show(const v1::JobEvent& event);
  // A remark of ours, on standard error.
  void Note(const std::string& text);
  // Wipes the status line.
  void Finish() { status_.Clear(); }

 private:
  void ShowState(const v1::StateChange& change);
  void ShowPhase(const v1::PhaseChange& change);
  void ShowStep(const v1::StepMetrics& step);
  void ShowCheckpoint(const v1::CheckpointCommitted& checkpoint);
  void ShowPreflight(const v1::PreflightReport& report);
  void ShowVerdict(const v1::ModelVerdict& verdict);
  void ShowValidation(const v1::ValidationResult& validation);
  void ShowResumption(const v1::Resumption& resumption);
  void ShowExport(const v1::ExportCommitted& committed);

  const Terminal& terminal_;
  StatusLine status_;
  TrainingProgress progress_;
};

// "14:03:07 W rank 0: text".
std::string LogText(const v1::JobEvent& event, const Terminal& terminal);

}  // namespace temper::command
