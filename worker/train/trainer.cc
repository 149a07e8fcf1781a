// SPDX-License-Identifier: Apache-2.0
#include "worker/train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/failure.h"
#include "common/fault_point.h"
#include "worker/model/gradient.h"
#include "worker/ops/matmul_peak.h"
#include "worker/train/adamw.h"
#include "worker/train/checkpointer.h"
#include "worker/train/lr_schedule.h"
#include "worker/train/model_export.h"
#include "worker/train/step_metrics.h"
#include "worker/train/train_step.h"
#include "worker/train/training_data.h"

namespace temper {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

absl::Status Stopped() { return absl::CancelledError("stopped on request"); }

at::ScalarType ComputeDtype(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return at::kFloat;
    case Precision::kBf16:
      return at::kBFloat16;
    case Precision::kAuto:
      break;
  }
  return ops::CpuHasNativeBf16() ? at::kBFloat16 : at::kFloat;
}

absl::Status NotFinite(std::string_view what, int64_t step, double learning_rate) {
  return WithCause(absl::AbortedError(absl::StrFormat(
                       "the %s of step %d is not finite (learning rate %g): lower training.learning_rate, set "
                       "training.max_grad_norm, or look for broken samples",
                       what, step, learning_rate)),
                   FailureCause::kNumerics);
}

// Takes the optimizer steps of a run, from `position` on.
class StepLoop {
 public:
  StepLoop(const TrainJob& job, Transformer& model, at::ScalarType dtype, AdamW& optimizer, BatchStream& batches,
           const TrainPosition& position, Checkpointer& checkpointer, TrainObserver& observer)
      : job_(job),
        model_(model),
        optimizer_(optimizer),
        batches_(batches),
        checkpointer_(checkpointer),
        dtype_(dtype),
        observer_(observer),
        peak_flops_(ops::MeasureMatmulPeak(dtype)),
        rates_(model.flop_rates()),
        position_(position) {}

  absl::Status Run(const StopSignal& stop) {
    while (position_.step < batches_.total_steps()) {
      if (const absl::Status status = TakeStep(stop); !status.ok()) return status;
      checkpointer_.AfterStep(position_);
      if (stop.requested()) return Stopped();
    }
    return absl::OkStatus();
  }

  // Steps that were taken; a step that was left in the middle counts for nothing.
  const TrainPosition& position() const { return position_; }

 private:
  absl::Status TakeStep(const StopSignal& stop) {
    const Clock::time_point begin = Clock::now();
    const int64_t step = position_.step + 1;
    const std::vector<MicroBatch> batches = batches_.NextStep();
    const StepWork work = CountWork(batches);

    ZeroGradients(model_.parameters());
    double loss = 0;
    for (const MicroBatch& batch : batches) {
      if (stop.now()) return Stopped();
      loss += ForwardBackward(model_, batch, objective_, static_cast<double>(work.scored_tokens));
    }
    const double learning_rate = LearningRate(job_.training, step, batches_.total_steps());
    if (!std::isfinite(loss)) return NotFinite("loss", step, learning_rate);
    const double norm = GlobalGradientNorm(model_.parameters());
    if (!std::isfinite(norm)) return NotFinite("gradient", step, learning_rate);
    FaultPoint("rank.step.before_update");
    optimizer_.Step(learning_rate, ClipScale(norm, job_.training.max_grad_norm));

    const BatchPosition& data = batches_.position();
    position_ = {step, position_.total_tokens + work.tokens, data.epoch, data.row};
    const double seconds = SecondsSince(begin);
    CorrectPeak(HardwareFlops(rates_, work) / seconds);
    observer_.OnStep({
        .step = step,
        .total_steps = batches_.total_steps(),
        .loss = loss,
        .grad_norm = norm,
        .learning_rate = learning_rate,
        .tokens = work.tokens,
        .scored_tokens = work.scored_tokens,
        .total_tokens = position_.total_tokens,
        .padding_ratio = 1.0 - static_cast<double>(work.tokens) / static_cast<double>(work.capacity),
        .seconds = seconds,
        .mfu = ModelFlops(rates_, work) / (seconds * peak_flops_),
        .hfu = HardwareFlops(rates_, work) / (seconds * peak_flops_),
        .peak_memory_bytes = PeakMemoryBytes(),
        .epoch = batches_.epochs_done(),
    });
    FaultPoint("rank.step.reported");
    return absl::OkStatus();
  }

  // The machine was busy when its peak was measured if a whole step is faster: the denominator of MFU is then measured
  // again, and is never below what was reached.
  void CorrectPeak(double reached) {
    if (reached <= peak_flops_) return;
    peak_flops_ = std::max(reached, ops::MeasureMatmulPeak(dtype_));
    observer_.OnLog(LogSeverity::kWarning,
                    absl::StrFormat("the machine was busy when its peak was measured; it is %.0f GFLOP/s now, and the "
                                    "MFU of earlier steps was too high",
                                    peak_flops_ / 1e9));
  }

  const TrainJob& job_;
  Transformer& model_;
  AdamW& optimizer_;
  BatchStream& batches_;
  Checkpointer& checkpointer_;
  const at::ScalarType dtype_;
  TrainObserver& observer_;
  double peak_flops_;
  const FlopRates rates_;
  const SupervisedObjective objective_;
  TrainPosition position_;
};

// Where the job's adapters go; none in full training.
absl::StatusOr<std::vector<AdapterSite>> FindSites(const TrainJob& job, const NativeRepository& source) {
  if (!job.lora) return std::vector<AdapterSite>();
  return FindAdapterSites(*source.family, source.config, job.lora->targets);
}

std::optional<LoraConfig> MakeLora(const TrainJob& job, const std::vector<AdapterSite>& sites) {
  if (!job.lora) return std::nullopt;
  LoraConfig config = {.rank = job.lora->rank, .alpha = job.lora->alpha, .seed = job.training.seed};
  for (const AdapterSite& site : sites) config.sites.push_back(site.internal);
  return config;
}

std::optional<PeftConfig> MakePeft(const TrainJob& job) {
  if (!job.lora) return std::nullopt;
  return PeftConfig{job.model_uri, job.lora->rank, job.lora->alpha};
}

// The newest of the job's own checkpoints that is whole; else what the job shall resume from; else null.
absl::StatusOr<std::unique_ptr<TrainCheckpoint>> FindCheckpoint(const TrainJob& job, TrainObserver& observer) {
  for (const std::string& uri : job.checkpoints) {
    auto checkpoint = TrainCheckpoint::Open(uri);
    if (checkpoint.ok()) return checkpoint;
    observer.OnLog(
        LogSeverity::kWarning,
        absl::StrCat("the checkpoint ", uri, " can't be used, trying the one before: ", checkpoint.status().message()));
  }
  if (!job.resume_from.empty()) {
    auto checkpoint = TrainCheckpoint::Open(job.resume_from);
    if (checkpoint.ok()) return checkpoint;
    return WithCause(
        absl::Status(checkpoint.status().code(), absl::StrCat("resume_from: ", checkpoint.status().message())),
        FailureCause::kUserInput);
  }
  return std::unique_ptr<TrainCheckpoint>();
}

// Loads the model and puts everything where `checkpoint` says (null: at the start).
struct TrainingState {
  std::unique_ptr<Transformer> model;
  std::unique_ptr<AdamW> optimizer;
  TrainPosition position;
};

absl::StatusOr<TrainingState> LoadState(const TrainJob& job, const NativeRepository& source,
                                        const std::vector<AdapterSite>& sites, const TrainCheckpoint* checkpoint,
                                        at::ScalarType dtype, BatchStream& batches) {
  const TransformerOptions options = {.dtype = dtype, .lora = MakeLora(job, sites)};
  TrainingState state;
  if (checkpoint == nullptr) {
    auto model = LoadTransformer(source, options);
    if (!model.ok()) return model.status();
    state.model = *std::move(model);
    state.optimizer = std::make_unique<AdamW>(state.model->parameters(), job.training.adamw);
    return state;
  }
  state.position = checkpoint->position();
  if (state.position.step > batches.total_steps()) {
    return absl::InvalidArgumentError(absl::StrCat("the checkpoint ", checkpoint->uri(), " is at step ",
                                                   state.position.step, ", but the job has only ",
                                                   batches.total_steps(), " steps: raise training.steps or epochs"));
  }
  const absl::Status found = batches.Seek({state.position.data_epoch, state.position.data_row, state.position.step});
  if (!found.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("the checkpoint ", checkpoint->uri(), ": ", found.message()));
  }
  const auto repository = checkpoint->OpenModel(source, MakePeft(job));
  if (!repository.ok()) return repository.status();
  auto model = LoadTransformer(*repository, options);
  if (!model.ok()) return model.status();
  state.model = *std::move(model);
  state.optimizer = std::make_unique<AdamW>(state.model->parameters(), job.training.adamw);
  state.optimizer->set_steps(state.position.step);
  if (const absl::Status restored = checkpoint->Restore(state.optimizer->moments()); !restored.ok()) return restored;
  return state;
}

CheckpointSource MakeCheckpointSource(const TrainJob& job, const NativeRepository& source,
                                      const std::vector<AdapterSite>& sites, const Transformer& model) {
  return {.model = &source,
          .max_shard_size = job.output.max_shard_size,
          .peft = MakePeft(job),
          .hf_modules = HfModules(sites, model)};
}

absl::Status Train(const TrainJob& job, TrainObserver& observer, const StopSignal& stop) {
  observer.OnPhase(TrainPhase::kPreparingData, 0);
  const auto output = ObjectStore::Open(job.output.uri);
  if (!output.ok()) return output.status();
  if (const absl::Status writable = CheckOutput(**output, job); !writable.ok()) return writable;
  const auto source = OpenNativeRepository(job.model_uri);
  if (!source.ok()) return source.status();
  const auto sites = FindSites(job, *source);
  if (!sites.ok()) return sites.status();
  const auto data = OpenTrainingData(job, source->config, observer, stop.requested());
  if (!data.ok()) return data.status();
  if (stop.requested()) return Stopped();

  observer.OnPhase(TrainPhase::kLoadingModel, (*data)->total_steps());
  auto checkpoint = FindCheckpoint(job, observer);
  if (!checkpoint.ok()) return checkpoint.status();
  const at::ScalarType dtype = ComputeDtype(job.training.precision);
  const auto state = LoadState(job, *source, *sites, checkpoint->get(), dtype, **data);
  if (!state.ok()) return state.status();
  if (*checkpoint != nullptr || job.epoch > 1) {
    observer.OnResume(state->position.step, *checkpoint != nullptr ? (*checkpoint)->uri() : "");
  }
  checkpoint->reset();
  Transformer& model = *state->model;
  observer.OnLog(LogSeverity::kInfo, absl::StrFormat("%s, %s, %d threads", source->family->architecture,
                                                     dtype == at::kBFloat16 ? "bf16" : "fp32", at::get_num_threads()));

  observer.OnPhase(TrainPhase::kTraining, (*data)->total_steps());
  Checkpointer checkpointer(**output, job, MakeCheckpointSource(job, *source, *sites, model), model, *state->optimizer,
                            state->position.step, observer);
  StepLoop loop(job, model, dtype, *state->optimizer, **data, state->position, checkpointer, observer);
  const auto train_and_export = [&]() -> absl::StatusOr<ExportSummary> {
    if (absl::Status trained = loop.Run(stop); !trained.ok()) return trained;
    checkpointer.Finish();
    observer.OnPhase(TrainPhase::kExporting, (*data)->total_steps());
    // Any text will do; the first row is real.
    if (absl::Status found = (*data)->Seek({}); !found.ok()) return found;
    return ExportAndProve(**output, job, *source, *sites, model, (*data)->NextStep().front(), stop, observer);
  };
  const auto exported = train_and_export();
  // Told to stop, and to keep what there is.
  if (absl::IsCancelled(exported.status()) && !stop.now()) checkpointer.SaveNow(loop.position());
  if (!exported.ok()) return exported.status();
  observer.OnLog(LogSeverity::kInfo, absl::StrCat("the export is proved: ", exported->proof));
  observer.OnExport(exported->uri, exported->bytes, exported->files);
  return absl::OkStatus();
}

absl::Status OutOfMemory(const std::string& detail) {
  return WithCause(
      absl::ResourceExhaustedError(absl::StrCat(
          "out of memory: lower training.micro_batch_tokens, or train adapters (lora). The system said: ", detail)),
      FailureCause::kOutOfMemory);
}

}  // namespace

absl::Status RunTrainJob(const TrainJob& job, TrainObserver& observer, const StopSignal& stop) {
  at::set_num_threads(job.threads > 0 ? job.threads : static_cast<int>(std::thread::hardware_concurrency()));
  try {
    return Train(job, observer, stop);
  } catch (const c10::Error& error) {
    // torch reports a failed allocation as a plain error.
    const std::string message = error.what_without_backtrace();
    if (message.find("can't allocate memory") != std::string::npos) return OutOfMemory(message);
    return absl::InternalError(message);
  } catch (const std::bad_alloc& error) {
    return OutOfMemory(error.what());
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace temper
