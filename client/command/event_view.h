// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "client/command/terminal.h"
#include "client/command/training_progress.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// Shows the events of one job as they come: lines that stay, and on a terminal, instead of a line per step, charts and
// the progress of the training, which are redrawn. One thread.
class EventView {
 public:
  explicit EventView(const Terminal& terminal) : terminal_(terminal), status_(terminal) {}

  void Show(const v1::JobEvent& event);
  // A remark of ours, on standard error.
  void Note(const std::string& text);
  // Nothing is redrawn any more; the last picture of the training stays.
  void Finish() { KeepPicture(); }

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

  // The training so far: its charts, as far as there is room, and a line.
  std::vector<std::string> Picture() const;
  // The picture stays; what comes is below it.
  void KeepPicture();

  const Terminal& terminal_;
  StatusArea status_;
  TrainingProgress progress_;
  bool shows_picture_ = false;
  std::chrono::steady_clock::time_point drawn_;  // the newest picture
};

// "14:03:07 W rank 0: text".
std::string LogText(const v1::JobEvent& event, const Terminal& terminal);

}  // namespace temper::command
