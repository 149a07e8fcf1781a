// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/checkpoint/train_snapshot.h"
#include "worker/model/trainable_model.h"
#include "worker/train/adamw.h"
#include "worker/train/checkpointer.h"
#include "worker/train/gang.h"
#include "worker/train/objective.h"
#include "worker/train/spike_detector.h"
#include "worker/train/step_metrics.h"
#include "worker/train/step_profiler.h"
#include "worker/train/stop_signal.h"
#include "worker/train/stopwatch.h"
#include "worker/train/train_job.h"
#include "worker/train/training_data.h"

namespace temper {

// Takes the steps of a run, from a position on: data, forward, backward, update; and between two steps validations,
// checkpoints, and the question whether it is time to end. The ranks of a gang go through it side by side.
class StepLoop {
 public:
  enum class End {
    kDone,      // the data or the steps are used up, or the job's limits are reached
    kRollBack,  // weights and optimizer are to be taken from the newest checkpoint; position() is where to go on
  };

  // All references must outlive it. `optimizer` is that of gang.ParametersOf(model); `teacher` as ChooseObjective.
  StepLoop(const TrainJob& job, const Gang& gang, TrainableModel& model, at::ScalarType dtype, AdamW& optimizer,
           TrainingData& data, const TrainPosition& position, Checkpointer& checkpointer, StepProfiler& profiler,
           TrainObserver& observer, TrainableModel* teacher = nullptr);

  // CANCELLED when `stop` asks for it, on all ranks after the same step; ABORTED (NUMERICS) after too many steps that
  // are not finite, or at a spike that is to end the job; and errors of the data, of which some is read while training
  // goes on: what was trained until then is in a checkpoint, of a rank that is alone.
  absl::StatusOr<End> Run(const StopSignal& stop);

  // Steps that were taken; a step that was left in the middle counts for nothing.
  const TrainPosition& position() const { return position_; }

 private:
  enum class Verdict { kUpdate, kSkip, kRollBack };

  // False: there is nothing left to train on.
  absl::StatusOr<bool> TakeStep(const StopSignal& stop);
  absl::StatusOr<Verdict> Judge(double loss, double norm, double learning_rate);
  absl::StatusOr<Verdict> OnSpikeFound(const std::string& spike);
  absl::Status DataFailed(const absl::Status& status);
  bool ValidationDue() const;
  absl::Status RunValidation(const StopSignal& stop);
  void NoteValidation(double loss);
  double MinImprovement() const;
  bool StopAsked(const StopSignal& stop) const { return gang_.alone() ? stop.requested().load() : settled_.stop; }
  bool TimeIsUp(double more_seconds) const;
  bool LimitReached();
  void Report(const StepWork& work, StepMetrics metrics, double seconds);
  void CorrectPeak(double reached);
  void Warn(const std::string& text) { observer_.OnLog(LogSeverity::kWarning, text); }

  const TrainJob& job_;
  const Gang& gang_;
  TrainableModel& model_;
  const std::vector<Parameter*>& parameters_;  // that the optimizer works on
  AdamW& optimizer_;
  TrainingData& data_;
  Checkpointer& checkpointer_;
  StepProfiler& profiler_;
  const at::ScalarType dtype_;
  TrainObserver& observer_;
  double peak_flops_;
  const FlopRates rates_;
  const std::unique_ptr<Objective> objective_;
  const std::unique_ptr<Objective> validation_objective_;
  SpikeDetector spikes_;
  TrainPosition position_;
  Stopwatch step_watch_;         // runs since the end of the step before, validations left out
  double snapshot_seconds_ = 0;  // since then
  bool roll_back_ = false;
  int64_t sent_bytes_;  // up to the end of the step before
  Gang::Step settled_;  // with the other ranks, in the newest step
};

}  // namespace temper
