// SPDX-License-Identifier: Apache-2.0
#include "worker/train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/counted.h"
#include "common/failure.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/parallel/agree.h"
#include "worker/train/checkpointer.h"
#include "worker/train/choose_backend.h"
#include "worker/train/compute_dtype.h"
#include "worker/train/device.h"
#include "worker/train/exception_barrier.h"
#include "worker/train/gang.h"
#include "worker/train/memory_estimate.h"
#include "worker/train/model_export.h"
#include "worker/train/plan_adapters.h"
#include "worker/train/reference_pass.h"
#include "worker/train/step_loop.h"
#include "worker/train/teacher.h"
#include "worker/train/threads.h"
#include "worker/train/training_data.h"

namespace temper {
namespace {

absl::Status Stopped() { return absl::CancelledError("stopped on request"); }

// Of an output that was good when the job's first gang looked at it: a mount that is gone, say. It may come back.
absl::Status OfGoodOutput(absl::Status status) {
  return CauseOf(status) == FailureCause::kUserInput ? WithCause(std::move(status), FailureCause::kStorage) : status;
}

std::optional<PeftConfig> PeftOf(const AdapterPlan* plan) {
  return plan == nullptr ? std::nullopt : std::optional(plan->peft);
}

// "2 threads, AVX-512 kernels", or "cuda:1".
std::string DescribeDevice(at::Device device) {
  if (!device.is_cpu()) return device.str();
  return absl::StrFormat("%s, %s kernels", Counted(at::get_num_threads(), "thread"),
                         ops::cpu::Name(ops::cpu::Kernels()));
}

struct FoundCheckpoint {
  std::unique_ptr<TrainCheckpoint> checkpoint;
  bool own = false;  // this job wrote it
};

// The newest of the job's own checkpoints that is whole; else what the job shall resume from; else null.
absl::StatusOr<FoundCheckpoint> FindCheckpoint(const TrainJob& job, ProcessGroup* ranks, TrainObserver& observer) {
  for (const std::string& uri : job.checkpoints) {
    auto checkpoint = TrainCheckpoint::Open(uri, ranks);
    if (checkpoint.ok()) return FoundCheckpoint{*std::move(checkpoint), /*own=*/true};
    observer.OnLog(
        LogSeverity::kWarning,
        absl::StrCat("the checkpoint ", uri, " can't be used, trying the one before: ", checkpoint.status().message()));
  }
  if (!job.resume_from.empty()) {
    auto checkpoint = TrainCheckpoint::Open(job.resume_from, ranks);
    if (checkpoint.ok()) return FoundCheckpoint{*std::move(checkpoint), /*own=*/false};
    return WithCause(
        absl::Status(checkpoint.status().code(), absl::StrCat("resume_from: ", checkpoint.status().message())),
        FailureCause::kUserInput);
  }
  return FoundCheckpoint();
}

void TellResumption(const FoundCheckpoint& from, const TrainJob& job, TrainObserver& observer) {
  if (from.checkpoint != nullptr) {
    // What another job has not told is not for this one to tell.
    observer.OnResume(from.checkpoint->position().step, from.checkpoint->uri(),
                      from.own ? from.checkpoint->unheard() : std::vector<std::string>());
  } else if (job.epoch > 1) {
    observer.OnResume(0, "", {});
  }
}

// The connections of a gang's ranks; null where one is alone.
struct Connections {
  std::unique_ptr<ProcessGroup> training;
  std::unique_ptr<ProcessGroup> writing;  // of checkpoints, in the background

  int rank() const { return training == nullptr ? 0 : training->rank(); }
};

absl::StatusOr<Connections> Connect(const std::optional<Rendezvous>& rendezvous, at::Device device) {
  if (!rendezvous) return Connections();
  auto training = ProcessGroup::Connect(*rendezvous, device);
  if (!training.ok()) return training.status();
  auto writing = (*training)->Duplicate();
  if (!writing.ok()) return writing.status();
  return Connections{*std::move(training), *std::move(writing)};
}

// Loads the model and puts everything where `checkpoint` says (null: at the start).
struct TrainingState {
  LoadedModel loaded;
  Gang gang;
  std::unique_ptr<AdamW> optimizer;
  TrainPosition position;
  std::string checkpoint;  // URI; empty: the model itself
};

absl::StatusOr<TrainingState> LoadState(const TrainJob& job, const NativeRepository& source, const AdapterPlan* plan,
                                        const TrainCheckpoint* checkpoint, at::ScalarType dtype, at::Device device,
                                        const std::vector<Recompute>& recompute, ProcessGroup* ranks) {
  TransformerOptions options = ModelOptions(job, plan, dtype);
  options.device = device;
  const auto load = [&](const NativeRepository& from, TrainingState& state) -> absl::Status {
    const TrainingOptions& training = job.training;
    auto loaded =
        LoadModel(from, options, ranks,
                  {.reshard_after_forward = !training.keep_weights, .reduce_each_micro_batch = !training.reduce_once});
    if (!loaded.ok()) return loaded.status();
    state.loaded = *std::move(loaded);
    state.loaded.model->SetRecompute(recompute);
    if (ranks != nullptr) state.gang = Gang(*ranks, *state.loaded.shards);
    state.optimizer = std::make_unique<AdamW>(state.gang.ParametersOf(*state.loaded.model), job.training.adamw);
    return absl::OkStatus();
  };
  TrainingState state;
  const int rank = ranks == nullptr ? 0 : ranks->rank();
  at::manual_seed(static_cast<uint64_t>(job.training.seed) + rank);  // what adapters drop
  if (checkpoint == nullptr) {
    if (const absl::Status loaded = load(source, state); !loaded.ok()) return loaded;
    const absl::Status started = plan != nullptr ? LoadStart(*plan, source, *state.loaded.model) : absl::OkStatus();
    if (absl::Status all = Agree(started, ranks); !all.ok()) return all;
    return state;
  }
  state.position = checkpoint->position();
  state.checkpoint = checkpoint->uri();
  const auto repository = checkpoint->OpenModel(source, PeftOf(plan));
  if (!repository.ok()) return repository.status();
  if (const absl::Status loaded = load(*repository, state); !loaded.ok()) return loaded;
  state.optimizer->set_steps(state.position.updates);
  const absl::Status restored = checkpoint->Restore(state.optimizer->moments(), state.gang.slices(), rank);
  if (absl::Status all = Agree(restored, ranks); !all.ok()) return all;
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
  const Connections& connections;
  TrainableModel* teacher;  // null without
};

// Trains from `state` on, and writes and proves the export; or returns at what position to go on from which checkpoint.
struct RollBack {
  TrainPosition position;
  std::string checkpoint;
};

absl::StatusOr<std::variant<ExportSummary, RollBack>> TrainAndExport(const Training& training, TrainingState& state) {
  TrainableModel& model = *state.loaded.model;
  const Gang& gang = state.gang;
  Checkpointer checkpointer(training.output, training.job, gang, training.connections.writing.get(),
                            MakeCheckpointSource(training.job, training.source, training.plan), model, *state.optimizer,
                            state.position.step, state.checkpoint, training.observer);
  StepProfiler profiler(training.job, training.output, training.observer);
  StepLoop loop(training.job, gang, model, training.dtype, *state.optimizer, training.data, state.position,
                checkpointer, profiler, training.observer, training.teacher);
  const auto finish = [&]() -> absl::StatusOr<std::variant<ExportSummary, RollBack>> {
    const auto end = loop.Run(training.stop);
    if (!end.ok()) return end.status();
    if (*end == StepLoop::End::kRollBack) {
      checkpointer.Finish();
      return RollBack{loop.position(), checkpointer.newest_uri()};
    }
    training.observer.OnPhase(TrainPhase::kExporting, training.data.batches().total_steps());
    checkpointer.Finish();
    auto exported = ExportAndProve(training.output, training.job, gang, training.source, training.plan, model,
                                   training.data.sample(), training.stop, training.observer, training.verifier);
    if (!exported.ok()) return OfGoodOutput(exported.status());
    return *std::move(exported);
  };
  const auto finished = finish();
  // Told to stop, and to keep what there is.
  if (absl::IsCancelled(finished.status()) && !gang.Any(training.stop.now())) checkpointer.SaveNow(loop.position());
  return finished;
}

absl::Status Train(const TrainJob& job, TrainObserver& observer, const StopSignal& stop, const Verifiers& verifiers) {
  observer.OnPhase(TrainPhase::kPreparingData, 0);
  const auto device = OpenDevice(job);
  if (!device.ok()) return device.status();
  const auto connections = Connect(job.rendezvous, *device);
  if (!connections.ok()) return connections.status();
  ProcessGroup* const ranks = connections->training.get();
  const auto output = ObjectStore::Open(job.output.uri);
  if (!output.ok()) return output.status();
  absl::Status writable = connections->rank() == 0 ? CheckOutput(**output, job) : absl::OkStatus();
  if (job.epoch > 1) writable = OfGoodOutput(std::move(writable));
  if (absl::Status all = Agree(writable, ranks); !all.ok()) return all;
  const at::ScalarType dtype = ComputeDtype(job.training.precision, job.device);
  const auto chosen = ChooseBackend(job, dtype, verifiers.model,
                                    [&observer](const std::string& text) { observer.OnLog(LogSeverity::kInfo, text); });
  if (absl::Status all = Agree(chosen.status(), ranks); !all.ok()) return all;
  observer.OnBackend(chosen->backend(), chosen->reason);
  observer.OnLog(LogSeverity::kInfo, chosen->reason);
  if (!chosen->warning.empty()) observer.OnLog(LogSeverity::kWarning, chosen->warning);
  const NativeRepository* const source = &chosen->model;
  const auto plan = PlanAdapters(job, *source);
  if (!plan.ok()) return plan.status();
  const absl::Status sound = CheckCheckpoint(*source, ModelOptions(job, plan->get(), dtype));
  if (absl::Status all = Agree(sound, ranks); !all.ok()) return all;
  const auto teacher = ChooseTeacher(job, dtype, verifiers.model);
  if (absl::Status all = Agree(teacher.status(), ranks); !all.ok()) return all;
  // Ranks leave their data together, or not at all: between two steps.
  const std::atomic<bool> never = false;
  const auto data = TrainingData::Open(job, source->config, observer, ranks == nullptr ? stop.requested() : never);
  if (absl::Status all = Agree(data.status(), ranks); !all.ok()) return all;
  const absl::Status able = *teacher ? CheckTeacher(job, (*teacher)->model, dtype, **data) : absl::OkStatus();
  if (absl::Status all = Agree(able, ranks); !all.ok()) return all;
  if (absl::Status all = Agree(stop.requested() ? Stopped() : absl::OkStatus(), ranks); !all.ok()) return all;

  observer.OnPhase(TrainPhase::kLoadingModel, (*data)->batches().total_steps());
  auto found = FindCheckpoint(job, ranks, observer);
  if (!found.ok()) return found.status();
  TrainCheckpoint* const checkpoint = found->checkpoint.get();
  if (checkpoint != nullptr) {
    if (const absl::Status sought = SeekData(*checkpoint, (*data)->batches()); !sought.ok()) return sought;
  }
  const bool bf16 = dtype == at::kBFloat16;
  const MemoryEstimate of_teacher = *teacher ? EstimateTeacher(job, (*teacher)->model, bf16) : MemoryEstimate();
  const auto recompute = ChooseRecompute(job, *source, plan->get(), bf16, AvailableBytes(*device), of_teacher);
  LoadedModel loaded_teacher;
  if (*teacher) {
    observer.OnLog(LogSeverity::kInfo, absl::StrCat("the teacher: ", (*teacher)->reason));
    if (!(*teacher)->warning.empty()) observer.OnLog(LogSeverity::kWarning, (*teacher)->warning);
    auto loaded = LoadTeacher((*teacher)->model, dtype, *device, ranks);
    if (!loaded.ok()) return loaded.status();
    loaded_teacher = *std::move(loaded);
  }
  if (const std::string what = Describe(recompute); !what.empty()) observer.OnLog(LogSeverity::kInfo, what);
  bool pass = NeedsReferencePass(job);
  if (pass) {
    const auto stored = LoadReference(**output, job, **data, ranks, observer);
    if (!stored.ok()) return stored.status();
    pass = !*stored;
  }
  // The pass is of the model as it is when training begins, wherever training then goes on.
  auto state = LoadState(job, *source, plan->get(), pass ? nullptr : checkpoint, dtype, *device, recompute, ranks);
  if (!state.ok()) return state.status();
  if (pass) {
    const absl::Status taken =
        TakeReferencePass(**output, job, state->gang, *state->loaded.model, **data, stop, observer);
    if (!taken.ok()) return taken;
    if (checkpoint != nullptr) {
      *state = {};  // before another is loaded
      state = LoadState(job, *source, plan->get(), checkpoint, dtype, *device, recompute, ranks);
      if (!state.ok()) return state.status();
    }
  }
  TellResumption(*found, job, observer);
  found->checkpoint.reset();
  observer.OnLog(LogSeverity::kInfo,
                 absl::StrFormat("%s, %s, %s", source->architecture(), dtype == at::kBFloat16 ? "bf16" : "fp32",
                                 DescribeDevice(*device)));

  const Training training = {job,
                             **output,
                             *source,
                             plan->get(),
                             **data,
                             dtype,
                             observer,
                             stop,
                             verifiers.exported,
                             *connections,
                             loaded_teacher.model.get()};
  while (true) {
    const auto finished = TrainAndExport(training, *state);
    if (!finished.ok()) return finished.status();
    if (const auto* const exported = std::get_if<ExportSummary>(&*finished)) {
      if (connections->rank() > 0) return absl::OkStatus();
      observer.OnLog(LogSeverity::kInfo, "the export is proved: its verification.json says by what");
      observer.OnExport(*exported);
      return absl::OkStatus();
    }
    const RollBack& back = std::get<RollBack>(*finished);
    *state = {};  // before another is loaded
    const auto older = TrainCheckpoint::Open(back.checkpoint, ranks);
    if (!older.ok()) return older.status();
    state = LoadState(job, *source, plan->get(), older->get(), dtype, *device, recompute, ranks);
    if (!state.ok()) return state.status();
    const int64_t updates = state->position.updates;
    state->position = back.position;
    state->position.updates = updates;
  }
}

constexpr char kOutOfMemory[] =
    "out of memory: lower training.micro_batch_tokens, train adapters (lora), or, with temper's own engine, set "
    "training.recompute to block";

}  // namespace

absl::Status RunTrainJob(const TrainJob& job, TrainObserver& observer, const StopSignal& stop,
                         const Verifiers& verifiers) {
  const int ranks = job.rendezvous ? job.rendezvous->size : 1;
  if (job.ranks != ranks) {
    return WithCause(absl::UnimplementedError(absl::StrCat("the job is for ", Counted(job.ranks, "rank"),
                                                           ", but this temper-rank was started as one of ", ranks,
                                                           ": submit it to a server, which starts them all")),
                     FailureCause::kLaunch);
  }
  at::set_num_threads(ThreadsOf(job));
  return WithoutExceptions(observer, kOutOfMemory, [&] { return Train(job, observer, stop, verifiers); });
}

}  // namespace temper
