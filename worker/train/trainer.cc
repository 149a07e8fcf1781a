// SPDX-License-Identifier: Apache-2.0
#include "worker/train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/counted.h"
#include "common/failure.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/train/checkpointer.h"
#include "worker/train/compute_dtype.h"
#include "worker/train/model_export.h"
#include "worker/train/plan_adapters.h"
#include "worker/train/step_loop.h"
#include "worker/train/training_data.h"

namespace temper {
namespace {

absl::Status Stopped() { return absl::CancelledError("stopped on request"); }

std::optional<PeftConfig> PeftOf(const AdapterPlan* plan) {
  return plan == nullptr ? std::nullopt : std::optional(plan->peft);
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
  std::string checkpoint;  // URI; empty: the model itself
};

absl::StatusOr<TrainingState> LoadState(const TrainJob& job, const NativeRepository& source, const AdapterPlan* plan,
                                        const TrainCheckpoint* checkpoint, at::ScalarType dtype) {
  const TransformerOptions options = ModelOptions(job, plan, dtype);
  TrainingState state;
  if (checkpoint == nullptr) {
    auto model = LoadTransformer(source, options);
    if (!model.ok()) return model.status();
    state.model = *std::move(model);
    if (plan != nullptr) {
      if (const absl::Status loaded = LoadStart(*plan, source, *state.model); !loaded.ok()) return loaded;
    }
    state.optimizer = std::make_unique<AdamW>(state.model->parameters(), job.training.adamw);
    at::manual_seed(static_cast<uint64_t>(job.training.seed));  // what adapters drop
    return state;
  }
  state.position = checkpoint->position();
  state.checkpoint = checkpoint->uri();
  const auto repository = checkpoint->OpenModel(source, PeftOf(plan));
  if (!repository.ok()) return repository.status();
  auto model = LoadTransformer(*repository, options);
  if (!model.ok()) return model.status();
  state.model = *std::move(model);
  state.optimizer = std::make_unique<AdamW>(state.model->parameters(), job.training.adamw);
  state.optimizer->set_steps(state.position.updates);
  if (const absl::Status restored = checkpoint->Restore(state.optimizer->moments()); !restored.ok()) return restored;
  return state;
}

absl::Status SeekData(const TrainCheckpoint& checkpoint, BatchStream& batches) {
  const TrainPosition& position = checkpoint.position();
  if (position.step > batches.total_steps() && batches.exact()) {
    return absl::InvalidArgumentError(absl::StrCat("the checkpoint ", checkpoint.uri(), " is at step ", position.step,
                                                   ", but the job has only ", Counted(batches.total_steps(), "step"),
                                                   ": raise training.steps or epochs"));
  }
  const absl::Status found = batches.Seek({position.data_epoch, position.data_block, position.data_row, position.step});
  if (found.ok() || !absl::IsOutOfRange(found)) return found;
  return absl::InvalidArgumentError(absl::StrCat("the checkpoint ", checkpoint.uri(), ": ", found.message()));
}

CheckpointSource MakeCheckpointSource(const TrainJob& job, const NativeRepository& source, const AdapterPlan* plan) {
  CheckpointSource from = {
      .model = &source, .max_shard_size = job.output.max_shard_size, .peft = PeftOf(plan), .sites = {}};
  if (plan != nullptr) from.sites = plan->sites;
  return from;
}

// The parts of a training that do not change when it goes back to a checkpoint.
struct Training {
  const TrainJob& job;
  ObjectStore& output;
  const NativeRepository& source;
  const AdapterPlan* plan;  // null: all weights
  TrainingData& data;
  at::ScalarType dtype;
  TrainObserver& observer;
  const StopSignal& stop;
  const ExportVerifier& verifier;
};

// Trains from `state` on, and writes and proves the export; or returns at what position to go on from which checkpoint.
struct RollBack {
  TrainPosition position;
  std::string checkpoint;
};

absl::StatusOr<std::variant<ExportSummary, RollBack>> TrainAndExport(const Training& training, TrainingState& state) {
  Transformer& model = *state.model;
  Checkpointer checkpointer(training.output, training.job,
                            MakeCheckpointSource(training.job, training.source, training.plan), model, *state.optimizer,
                            state.position.step, state.checkpoint, training.observer);
  StepProfiler profiler(training.job, training.output, training.observer);
  const Gang alone;
  StepLoop loop(training.job, alone, model, training.dtype, *state.optimizer, training.data, state.position,
                checkpointer, profiler, training.observer);
  const auto finish = [&]() -> absl::StatusOr<std::variant<ExportSummary, RollBack>> {
    const auto end = loop.Run(training.stop);
    if (!end.ok()) return end.status();
    if (*end == StepLoop::End::kRollBack) {
      checkpointer.Finish();
      return RollBack{loop.position(), checkpointer.newest_uri()};
    }
    training.observer.OnPhase(TrainPhase::kExporting, training.data.batches().total_steps());
    checkpointer.Finish();
    auto exported = ExportAndProve(training.output, training.job, training.source, training.plan, model,
                                   training.data.sample(), training.stop, training.observer, training.verifier);
    if (!exported.ok()) return exported.status();
    return *std::move(exported);
  };
  const auto finished = finish();
  // Told to stop, and to keep what there is.
  if (absl::IsCancelled(finished.status()) && !training.stop.now()) checkpointer.SaveNow(loop.position());
  return finished;
}

absl::Status Train(const TrainJob& job, TrainObserver& observer, const StopSignal& stop,
                   const ExportVerifier& verifier) {
  observer.OnPhase(TrainPhase::kPreparingData, 0);
  const auto output = ObjectStore::Open(job.output.uri);
  if (!output.ok()) return output.status();
  if (const absl::Status writable = CheckOutput(**output, job); !writable.ok()) return writable;
  const auto source = OpenNativeRepository(job.model_uri);
  if (!source.ok()) return source.status();
  const auto plan = PlanAdapters(job, *source);
  if (!plan.ok()) return plan.status();
  const at::ScalarType dtype = ComputeDtype(job.training.precision);
  if (absl::Status sound = CheckCheckpoint(*source, ModelOptions(job, plan->get(), dtype)); !sound.ok()) return sound;
  const auto data = TrainingData::Open(job, source->config, observer, stop.requested());
  if (!data.ok()) return data.status();
  if (stop.requested()) return Stopped();

  observer.OnPhase(TrainPhase::kLoadingModel, (*data)->batches().total_steps());
  auto checkpoint = FindCheckpoint(job, observer);
  if (!checkpoint.ok()) return checkpoint.status();
  if (*checkpoint != nullptr) {
    if (const absl::Status found = SeekData(**checkpoint, (*data)->batches()); !found.ok()) return found;
  }
  auto state = LoadState(job, *source, plan->get(), checkpoint->get(), dtype);
  if (!state.ok()) return state.status();
  if (*checkpoint != nullptr || job.epoch > 1) {
    observer.OnResume(state->position.step, *checkpoint != nullptr ? (*checkpoint)->uri() : "");
  }
  checkpoint->reset();
  observer.OnLog(
      LogSeverity::kInfo,
      absl::StrFormat("%s, %s, %s, %s kernels", source->family->architecture, dtype == at::kBFloat16 ? "bf16" : "fp32",
                      Counted(at::get_num_threads(), "thread"), ops::cpu::Name(ops::cpu::Kernels())));

  const Training training = {job, **output, *source, plan->get(), **data, dtype, observer, stop, verifier};
  while (true) {
    const auto finished = TrainAndExport(training, *state);
    if (!finished.ok()) return finished.status();
    if (const auto* const exported = std::get_if<ExportSummary>(&*finished)) {
      observer.OnLog(LogSeverity::kInfo, absl::StrCat("the export is proved: ", exported->proof));
      observer.OnExport(*exported);
      return absl::OkStatus();
    }
    const RollBack& back = std::get<RollBack>(*finished);
    *state = {};  // before another is loaded
    const auto older = TrainCheckpoint::Open(back.checkpoint);
    if (!older.ok()) return older.status();
    state = LoadState(job, *source, plan->get(), older->get(), dtype);
    if (!state.ok()) return state.status();
    const int64_t updates = state->position.updates;
    state->position = back.position;
    state->position.updates = updates;
  }
}

absl::Status OutOfMemory(const std::string& detail) {
  return WithCause(
      absl::ResourceExhaustedError(absl::StrCat(
          "out of memory: lower training.micro_batch_tokens, or train adapters (lora). The system said: ", detail)),
      FailureCause::kOutOfMemory);
}

}  // namespace

absl::Status RunTrainJob(const TrainJob& job, TrainObserver& observer, const StopSignal& stop,
                         const ExportVerifier& verifier) {
  if (job.world_size > 1) {
    return WithCause(absl::UnimplementedError(
                         absl::StrCat("this temper-rank trains alone, but was made one of ", job.world_size, " ranks")),
                     FailureCause::kLaunch);
  }
  at::set_num_threads(job.threads > 0 ? job.threads : static_cast<int>(std::thread::hardware_concurrency()));
  try {
    return Train(job, observer, stop, verifier);
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
