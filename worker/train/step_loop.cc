// SPDX-License-Identifier: Apache-2.0
#include "worker/train/step_loop.h"

#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/counted.h"
#include "common/failure.h"
#include "common/fault_point.h"
#include "worker/model/gradient.h"
#include "worker/ops/matmul_peak.h"
#include "worker/train/choose_objective.h"
#include "worker/train/device.h"
#include "worker/train/lr_schedule.h"
#include "worker/train/phase_watch.h"
#include "worker/train/train_step.h"
#include "worker/train/validation.h"

namespace temper {
namespace {

absl::Status Stopped() { return absl::CancelledError("stopped on request"); }

absl::Status NotFinite(const char* what, int64_t step, double learning_rate, int32_t steps) {
  return WithCause(absl::AbortedError(
                       absl::StrFormat("the %s of step %d is not finite, as in %s in a row (learning rate %g): lower "
                                       "training.learning_rate, set training.max_grad_norm, or look for broken samples",
                                       what, step, Counted(steps, "step"), learning_rate)),
                   FailureCause::kNumerics);
}

}  // namespace

StepLoop::StepLoop(const TrainJob& job, const Gang& gang, TrainableModel& model, at::ScalarType dtype, AdamW& optimizer,
                   TrainingData& data, const TrainPosition& position, Checkpointer& checkpointer,
                   StepProfiler& profiler, TrainObserver& observer, TrainableModel* teacher)
    : job_(job),
      gang_(gang),
      model_(model),
      parameters_(gang.ParametersOf(model)),
      optimizer_(optimizer),
      data_(data),
      checkpointer_(checkpointer),
      profiler_(profiler),
      dtype_(dtype),
      observer_(observer),
      peak_flops_(ops::MeasureMatmulPeak(dtype, model.device())),
      rates_(model.flop_rates()),
      objective_(ChooseObjective(job, teacher)),
      validation_objective_(ChooseValidationObjective(job, teacher)),
      spikes_(job.training.numerics.spike_deviations, position.recent_losses, position.recent_norms),
      position_(position),
      sent_bytes_(gang.bytes_sent()) {}

absl::StatusOr<StepLoop::End> StepLoop::Run(const StopSignal& stop) {
  observer_.OnPhase(TrainPhase::kTraining, data_.batches().total_steps());
  step_watch_.Lap();
  while (true) {
    if (ValidationDue()) {
      if (const absl::Status status = RunValidation(stop); !status.ok()) return status;
      step_watch_.Lap();
    }
    Stopwatch watch;
    checkpointer_.AfterStep(position_);
    snapshot_seconds_ = watch.Lap();
    if (StopAsked(stop)) return Stopped();
    if (LimitReached()) break;
    profiler_.BeforeStep(position_.step + 1);
    const absl::StatusOr<bool> taken = TakeStep(stop);
    if (!taken.ok()) return taken.status();
    if (!*taken) break;
    profiler_.AfterStep(position_.step);
    if (std::exchange(roll_back_, false)) return End::kRollBack;
  }
  if (data_.validation().has_value() && position_.validated_step < position_.step) {
    if (const absl::Status status = RunValidation(stop); !status.ok()) return status;
    checkpointer_.AfterStep(position_);
  }
  return End::kDone;
}

absl::StatusOr<bool> StepLoop::TakeStep(const StopSignal& stop) {
  RECORD_USER_SCOPE(absl::StrCat("step ", position_.step + 1));
  observer_.OnStepBegun();
  StepPhases phases = {.checkpoint = snapshot_seconds_};
  PhaseWatch watch(gang_, model_.device(), phases);
  absl::StatusOr<std::vector<MicroBatch>> batches = data_.batches().NextStep();
  if (!batches.ok()) return DataFailed(batches.status());
  if (batches->empty()) return false;
  watch.Lap(&StepPhases::data);
  const StepWork work = CountWork(rates_, *batches, *objective_);

  ZeroGradients(parameters_);
  watch.Skip();
  StepShare mine = {.sums = std::vector<double>(objective_->num_sums()), .maxima = NoMaxima(objective_->num_maxima())};
  const std::vector<MicroBatch> share = gang_.ShareOf(*std::move(batches));
  for (const MicroBatch& batch : share) {
    if (gang_.alone() && stop.now()) return Stopped();
    gang_.SetLastMicroBatch(&batch == &share.back());
    mine += ForwardBackward(model_, batch, *objective_, work.normalizer, &watch);
  }
  const int64_t total_steps = data_.batches().total_steps();
  const double learning_rate = LearningRate(job_.training, position_.step + 1, total_steps);
  ZeroFrozenGradients(parameters_);
  settled_ = gang_.Settle({.loss = mine.loss,
                           .sums = std::move(mine.sums),
                           .gradient_norm = GlobalGradientNorm(parameters_),
                           .stop = stop.requested(),
                           .time_is_up = TimeIsUp(step_watch_.Elapsed()),
                           .compute_seconds = phases.data + phases.forward + phases.backward});
  std::map<std::string, double> figures = objective_->Figures(settled_.sums);
  figures.merge(objective_->Extremes(gang_.Max(std::move(mine.maxima))));
  const double loss = settled_.loss, norm = settled_.gradient_norm;
  const absl::StatusOr<Verdict> verdict = Judge(loss, norm, learning_rate);
  if (!verdict.ok()) return verdict.status();
  FaultPoint("rank.step.before_update");
  if (*verdict == Verdict::kUpdate) {
    RECORD_USER_SCOPE("optimizer");
    optimizer_.Step(learning_rate, ClipScale(norm, job_.training.max_grad_norm));
    ++position_.updates;
  }
  watch.Lap(&StepPhases::optimizer);

  const BatchPosition& data = data_.batches().position();
  ++position_.step;
  position_.total_tokens += work.tokens;
  position_.data_epoch = data.epoch;
  position_.data_block = data.block;
  position_.data_row = data.row;
  roll_back_ = *verdict == Verdict::kRollBack;
  Report(work,
         {.step = position_.step,
          .total_steps = total_steps,
          .loss = loss,
          .grad_norm = norm,
          .learning_rate = learning_rate,
          .phases = phases,
          .skipped = *verdict != Verdict::kUpdate,
          .rank_compute_seconds = settled_.rank_compute_seconds,
          .objective = std::move(figures)},
         step_watch_.Lap());
  FaultPoint("rank.step.reported");
  return true;
}

void StepLoop::Report(const StepWork& work, StepMetrics metrics, double seconds) {
  position_.seconds += seconds;
  const double ranks = gang_.size();
  CorrectPeak(HardwareFlops(rates_, work) / (seconds * ranks));
  metrics.phases.other = std::max(0.0, seconds - metrics.phases.sum());
  metrics.tokens = work.tokens;
  metrics.scored_tokens = work.scored_tokens;
  metrics.total_tokens = position_.total_tokens;
  metrics.padding_ratio = 1.0 - static_cast<double>(work.tokens) / static_cast<double>(work.capacity);
  metrics.seconds = seconds;
  if (rates_.known) {
    metrics.mfu = ModelFlops(rates_, work) / (seconds * ranks * peak_flops_);
    metrics.hfu = HardwareFlops(rates_, work) / (seconds * ranks * peak_flops_);
  }
  metrics.peak_memory_bytes = PeakMemoryBytes(model_.device());
  metrics.sent_bytes = gang_.bytes_sent() - std::exchange(sent_bytes_, gang_.bytes_sent());
  metrics.epoch = data_.batches().epochs_done();
  observer_.OnStep(metrics);
}

absl::StatusOr<StepLoop::Verdict> StepLoop::Judge(double loss, double norm, double learning_rate) {
  const int64_t step = position_.step + 1;
  if (!std::isfinite(loss) || !std::isfinite(norm)) {
    const char* const what = std::isfinite(loss) ? "gradient" : "loss";
    const bool nothing_learned = position_.skipped_in_a_row == position_.step && step >= data_.batches().total_steps();
    if (++position_.skipped_in_a_row >= job_.training.numerics.max_skipped_steps || nothing_learned) {
      return NotFinite(what, step, learning_rate, position_.skipped_in_a_row);
    }
    Warn(absl::StrFormat("the %s of step %d is not finite: the step changes no weight", what, step));
    return Verdict::kSkip;
  }
  position_.skipped_in_a_row = 0;
  const std::string spike = spikes_.Check(loss, norm);
  spikes_.Add(loss, norm);
  position_.recent_losses = spikes_.losses();
  position_.recent_norms = spikes_.norms();
  return spike.empty() ? Verdict::kUpdate : OnSpikeFound(absl::StrCat("step ", step, " has ", spike));
}

absl::StatusOr<StepLoop::Verdict> StepLoop::OnSpikeFound(const std::string& spike) {
  switch (job_.training.numerics.on_spike) {
    case OnSpike::kWarn:
      Warn(spike);
      return Verdict::kUpdate;
    case OnSpike::kSkip:
      break;
    case OnSpike::kRollBack:
      checkpointer_.Finish();
      if (checkpointer_.newest_uri().empty()) {
        Warn(absl::StrCat(spike, ": there is no checkpoint to go back to, the step changes no weight"));
        return Verdict::kSkip;
      }
      Warn(absl::StrCat(spike, ": going back to the weights of ", checkpointer_.newest_uri()));
      return Verdict::kRollBack;
    case OnSpike::kStop:
      checkpointer_.Finish();
      return WithCause(
          absl::AbortedError(absl::StrCat(spike,
                                          ", and training.numerics.on_spike is stop: look at the data of the "
                                          "step, lower training.learning_rate, or go on from a checkpoint with "
                                          "resume_from and another on_spike")),
          FailureCause::kNumerics);
  }
  Warn(absl::StrCat(spike, ": the step changes no weight"));
  return Verdict::kSkip;
}

absl::Status StepLoop::DataFailed(const absl::Status& status) {
  // Others may have got their data.
  if (absl::IsCancelled(status) || position_.step == 0 || !gang_.alone()) return status;
  checkpointer_.SaveNow(position_);
  if (checkpointer_.newest_uri().empty()) return status;
  return WithCause(absl::Status(status.code(), absl::StrCat(status.message(), ". What was trained until then is in ",
                                                            checkpointer_.newest_uri(),
                                                            ": correct the data and submit the job again "
                                                            "with resume_from")),
                   CauseOf(status));
}

bool StepLoop::ValidationDue() const {
  return data_.validation().has_value() && position_.step > position_.validated_step &&
         position_.step % data_.validate_every_steps() == 0;
}

absl::Status StepLoop::RunValidation(const StopSignal& stop) {
  Stopwatch watch;
  const absl::StatusOr<MeanLoss> mean = Validate(gang_, model_, data_.validation()->rows, *validation_objective_, stop);
  if (!mean.ok()) return mean.status();
  NoteValidation(mean->loss);
  observer_.OnValidation({.step = position_.step,
                          .loss = mean->loss,
                          .scored_tokens = mean->scored_tokens,
                          .seconds = watch.Lap(),
                          .best = position_.best_step == position_.step,
                          .objective = mean->objective});
  return absl::OkStatus();
}

// Any lower loss is kept; one that is lower by enough keeps the run going.
void StepLoop::NoteValidation(double loss) {
  position_.validated_step = position_.step;
  const bool first = position_.best_step == 0;
  const bool improved = std::isfinite(loss) && (first || loss < position_.improved_loss - MinImprovement());
  position_.validations_since_improvement = improved ? 0 : position_.validations_since_improvement + 1;
  if (improved) position_.improved_loss = loss;
  if (std::isfinite(loss) && (first || loss < position_.best_loss)) {
    position_.best_step = position_.step;
    position_.best_loss = loss;
  }
}

double StepLoop::MinImprovement() const {
  return job_.validation->early_stop ? job_.validation->early_stop->min_improvement : 0;
}

bool StepLoop::TimeIsUp(double more_seconds) const {
  const double limit = 60 * job_.training.max_minutes;
  return limit > 0 && position_.seconds + more_seconds >= limit;
}

bool StepLoop::LimitReached() {
  const auto end = [&](const std::string& why) {
    observer_.OnLog(LogSeverity::kInfo, absl::StrCat("training ends after step ", position_.step, ": ", why));
    return true;
  };
  if (gang_.alone() ? TimeIsUp(0) : settled_.time_is_up) {
    return end(absl::StrFormat("it has taken %g minutes, as training.max_minutes allows", job_.training.max_minutes));
  }
  if (job_.validation && job_.validation->early_stop &&
      position_.validations_since_improvement >= job_.validation->early_stop->patience) {
    const std::string margin = MinImprovement() > 0 ? absl::StrFormat(" by more than %g", MinImprovement()) : "";
    return end(absl::StrFormat("the validation loss has not been below %.6g%s for %s; the lowest was that of step %d",
                               position_.improved_loss, margin,
                               Counted(position_.validations_since_improvement, "validation"), position_.best_step));
  }
  return false;
}

// The machine was busy when its peak was measured if a whole step is faster: the denominator of MFU is then measured
// again, and is never below what was reached.
void StepLoop::CorrectPeak(double reached) {
  if (reached <= peak_flops_) return;
  peak_flops_ = std::max(reached, ops::MeasureMatmulPeak(dtype_, model_.device()));
  step_watch_.Lap();
  Warn(absl::StrFormat(
      "the machine was busy when its peak was measured; it is %.0f GFLOP/s now, and the MFU of earlier steps was too "
      "high",
      peak_flops_ / 1e9));
}

}  // namespace temper
