// SPDX-License-Identifier: Apache-2.0
// Takes a training's steps on N ranks of this host, each a process: real data, a real step loop, shards, and an export
// if one is wanted; or all that a job is.
//
//   gang_probe MODEL DATA.jsonl --world N --steps S [--lora TARGET…] [--dora] [--modules MODULE…]
//              [--stop-rank R --stop-after S] [--die-rank R --die-after S] [--memory-limit MB]
//              [--nudge] [--export DIR [--adapters adapter|merged|both]]
//              [--job DIR [--checkpoint-every S] [--resume-from URI] [--bf16] [--dropout X] [--profile S]
//               [--keep-weights] [--reduce-once] [--epoch E]]
//              [--preference | --reward | --teacher DIR] [--hf]
//
// Rank 0 prints a JSON line a step (step, loss, grad_norm, sent_bytes, and where its time went: seconds, communication,
// phases, which is their sum), and one of a validation once all are taken (validation_loss, scored_tokens). Each rank
// prints one when it has loaded the model (loaded_on: the rank; peak_bytes: how much more memory it had at most
// meanwhile), unless --job, and one when it ends (rank, steps, end: "done" or what the status says, and peak_bytes, of
// all that the process had).
// --stop-rank is told to stop, --die-rank kills itself, when the step is over. --memory-limit: what a rank may allocate
// from before the model is loaded on. --nudge: trained weights are changed a little (probe_gang.h) after the steps.
// --job: all of it, as a job's ranks do it, with checkpoints and the export below DIR; a line tells of each checkpoint
// (checkpoint, bytes, pause), and of what the training goes on from (resumed_after). --epoch: as the job's gang of that
// epoch, to which --resume-from is its own checkpoint. --preference: DPO; --reward, of --job: a reward model;
// --teacher, of --job: distillation from that model; steps have figures of each. --hf: transformers trains.
#include <ATen/Parallel.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/parity/probe_gang.h"
#include "tests/peak_memory.h"
#include "tests/worker/train/silent_observer.h"
#include "worker/checkpoint/native_model.h"
#include "worker/ops/vector_math.h"
#include "worker/train/adamw.h"
#include "worker/train/checkpointer.h"
#include "worker/train/choose_objective.h"
#include "worker/train/gang.h"
#include "worker/train/hf_repository_backend.h"
#include "worker/train/model_export.h"
#include "worker/train/plan_adapters.h"
#include "worker/train/step_loop.h"
#include "worker/train/trainer.h"
#include "worker/train/training_data.h"
#include "worker/train/validation.h"

namespace temper {
namespace {

struct Arguments {
  std::string model, data;
  bool hf = false;
  int world = 1;
  int64_t steps = 4;
  std::vector<std::string> targets, modules;
  bool dora = false, nudge = false;
  int64_t memory_limit_mb = 0;
  std::string export_to, job_output, resume_from, teacher;
  int64_t checkpoint_every = 0;
  bool bf16 = false;
  double dropout = 0;
  int64_t profiled_step = 0;
  bool keep_weights = false, reduce_once = false, preference = false, reward = false;
  int epoch = 1;
  AdapterExport adapters = AdapterExport::kAdapter;
  int stop_rank = -1, die_rank = -1;
  int64_t stop_after = 0, die_after = 0;
};

template <typename T>
T Value(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "gang_probe: %s\n", std::string(value.status().message()).c_str());
    std::exit(1);
  }
  return *std::move(value);
}

class Printer : public SilentObserver {
 public:
  Printer(const Arguments& arguments, int rank, StopSignal& stop) : arguments_(arguments), rank_(rank), stop_(stop) {}

  void OnStep(const StepMetrics& metrics) override {
    steps_ = metrics.step;
    if (rank_ == 0) {
      std::printf("{\"step\": %ld, \"loss\": %.17g, \"grad_norm\": %.17g, ", metrics.step, metrics.loss,
                  metrics.grad_norm);
      std::printf("\"sent_bytes\": %ld, ", metrics.sent_bytes);
      for (const auto& [name, figure] : metrics.objective) std::printf("\"%s\": %.17g, ", name.c_str(), figure);
      std::printf("\"seconds\": %.17g, \"communication\": %.17g, \"phases\": %.17g}\n", metrics.seconds,
                  metrics.phases.communication, metrics.phases.sum());
    }
    if (rank_ == arguments_.stop_rank && metrics.step == arguments_.stop_after) stop_.Request(/*checkpoint=*/true);
    if (rank_ == arguments_.die_rank && metrics.step == arguments_.die_after) kill(getpid(), SIGKILL);
  }
  void OnLog(LogSeverity severity, const std::string& text) override {
    if (severity == LogSeverity::kWarning) std::fprintf(stderr, "rank %d: %s\n", rank_, text.c_str());
  }
  void OnCheckpoint(const CheckpointReport& report) override {
    std::printf("{\"checkpoint\": \"%s\", \"bytes\": %ld, \"pause\": %g}\n", report.uri.c_str(), report.bytes,
                report.pause_seconds);
  }
  void OnResume(int64_t step, const std::string&, const std::vector<std::string>&) override {
    steps_ = step;
    if (rank_ == 0) std::printf("{\"resumed_after\": %ld}\n", step);
  }

  int64_t steps() const { return steps_; }

 private:
  const Arguments& arguments_;
  const int rank_;
  StopSignal& stop_;
  int64_t steps_ = 0;
};

TrainJob MakeJob(const Arguments& arguments) {
  TrainJob job = {.job_id = "probe", .model_uri = arguments.model};
  if (arguments.hf) job.backend = Backend::kHf;
  job.data.sources.push_back({.uri = arguments.data});
  if (!arguments.targets.empty()) {
    job.lora = LoraOptions{
        .rank = 4, .alpha = 8, .targets = arguments.targets, .dora = arguments.dora, .dropout = arguments.dropout};
    job.lora->modules_to_save = arguments.modules;
  }
  job.training = {.steps = std::max<int64_t>(1, arguments.steps),
                  .tokens_per_step = 640,  // five rows: no world from 2 to 4 divides them
                  .micro_batch_tokens = 128,
                  .learning_rate = 5e-3,
                  .precision = arguments.bf16 ? Precision::kBf16 : Precision::kFp32,
                  .keep_weights = arguments.keep_weights,
                  .reduce_once = arguments.reduce_once};
  if (arguments.profiled_step > 0) job.profile = {.first_step = arguments.profiled_step, .steps = 1};
  if (arguments.preference) job.preference = PreferenceOptions{.beta = 0.5};
  if (!arguments.teacher.empty()) {
    job.distillation = {.teacher = arguments.teacher, .divergence = {.kind = ops::DivergenceKind::kJsd}};
  }
  if (arguments.reward) job.reward = RewardOptions{.centering = 0.01};
  job.checkpoint_options = {.every_steps = arguments.checkpoint_every, .keep_last = 10};
  job.epoch = arguments.epoch;
  if (job.epoch > 1) {
    job.checkpoints = {arguments.resume_from};
  } else {
    job.resume_from = arguments.resume_from;
  }
  job.threads = 1;
  job.output = {.uri = "/nowhere", .adapters = arguments.adapters};
  for (const std::string& uri : {arguments.export_to, arguments.job_output}) {
    if (!uri.empty()) job.output.uri = uri;
  }
  return job;
}

absl::StatusOr<NativeRepository> OpenSource(const Arguments& arguments) {
  if (!arguments.hf) return OpenNativeRepository(arguments.model);
  return OpenForTransformers(arguments.model, /*remote_code=*/false, [](const std::string&) {});
}

// Allocations beyond fail. Files that are mapped do not count.
void LimitMemory(int64_t megabytes) {
  std::ifstream status("/proc/self/status");
  int64_t used_kb = 0;
  for (std::string field; status >> field;) {
    if (field == "VmData:") status >> used_kb;
  }
  const rlimit limit = {static_cast<rlim_t>((used_kb << 10) + (megabytes << 20)), RLIM_INFINITY};
  setrlimit(RLIMIT_DATA, &limit);
}

// Of other data, which the step loop sees nothing of: the best of its validations would be saved.
MeanLoss ValidateHeldOut(TrainJob job, const ModelConfig& config, const Gang& gang, TrainableModel& model,
                         TrainObserver& observer, const StopSignal& stop) {
  job.validation = ValidationOptions{.share = 0.2};
  const auto data = Value(TrainingData::Open(job, config, observer, stop.requested()));
  return Value(Validate(gang, model, data->validation()->rows, *ChooseValidationObjective(job), stop));
}

// Says how the steps ended.
std::string TakeSteps(const TrainJob& job, const ModelConfig& config, const Gang& gang, TrainableModel& model,
                      TrainObserver& observer, const StopSignal& stop) {
  const auto data = Value(TrainingData::Open(job, config, observer, stop.requested()));
  AdamW optimizer(gang.ParametersOf(model), job.training.adamw);
  const auto store = Value(ObjectStore::Open("/tmp"));
  Checkpointer checkpointer(*store, job, gang, /*writing=*/nullptr, {}, model, optimizer, 0, "", observer);
  StepProfiler profiler(job, *store, observer);
  StepLoop loop(job, gang, model, at::kFloat, optimizer, *data, {}, checkpointer, profiler, observer);
  const auto end = loop.Run(stop);
  if (!end.ok()) return std::string(end.status().message());
  const MeanLoss mean = ValidateHeldOut(job, config, gang, model, observer, stop);
  if (gang.rank() == 0) {
    std::printf("{\"validation_loss\": %.17g, \"scored_tokens\": %ld}\n", mean.loss, mean.scored_tokens);
  }
  return "done";
}

std::string Export(const TrainJob& job, const Gang& gang, const NativeRepository& source, const AdapterPlan* plan,
                   TrainableModel& model, TrainObserver& observer, const StopSignal& stop) {
  const auto data = Value(TrainingData::Open(job, source.config, observer, stop.requested()));
  const auto store = Value(ObjectStore::Open(job.output.uri));
  const auto exported = ExportAndProve(*store, job, gang, source, plan, model, data->sample(), stop, observer);
  return exported.ok() ? "done" : std::string(exported.status().message());
}

// Says how it ended.
std::string Run(const Arguments& arguments, const Rendezvous& rendezvous, TrainObserver& observer,
                const StopSignal& stop) {
  TrainJob job = MakeJob(arguments);
  if (!arguments.job_output.empty()) {
    job.ranks = job.ranks_per_node = rendezvous.size;
    if (rendezvous.size > 1) job.rendezvous = rendezvous;
    const absl::Status end = RunTrainJob(job, observer, stop);
    return end.ok() ? "done" : std::string(end.message());
  }
  std::unique_ptr<ProcessGroup> group;
  if (rendezvous.size > 1) group = Value(ProcessGroup::Connect(rendezvous));
  if (arguments.memory_limit_mb > 0) LimitMemory(arguments.memory_limit_mb);
  const NativeRepository source = Value(OpenSource(arguments));
  const auto plan = Value(PlanAdapters(job, source));
  const TransformerOptions options =
      plan != nullptr ? plan->ModelOptions(at::kFloat, /*seed=*/0) : TransformerOptions{};
  LoadedModel loaded;
  const int64_t peak = PeakBytesOf([&] { loaded = Value(LoadModel(source, options, group.get())); });
  const std::string line = absl::StrCat("{\"loaded_on\": ", rendezvous.rank, ", \"peak_bytes\": ", peak, "}\n");
  std::fputs(line.c_str(), stdout);
  const Gang gang = group == nullptr ? Gang() : Gang(*group, *loaded.shards);
  if (arguments.steps > 0) {
    const std::string end = TakeSteps(job, source.config, gang, *loaded.model, observer, stop);
    if (end != "done") return end;
  }
  if (arguments.nudge) NudgeWeights(gang.ParametersOf(*loaded.model));
  if (arguments.export_to.empty()) return "done";
  return Export(job, gang, source, plan.get(), *loaded.model, observer, stop);
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Takes a training's steps on several ranks.");
  app.add_option("model", arguments.model)->required();
  app.add_option("data", arguments.data)->required();
  app.add_flag("--hf", arguments.hf);
  app.add_option("--world", arguments.world);
  app.add_option("--steps", arguments.steps);
  app.add_option("--lora", arguments.targets);
  app.add_flag("--dora", arguments.dora);
  app.add_option("--modules", arguments.modules);
  app.add_option("--stop-rank", arguments.stop_rank);
  app.add_option("--stop-after", arguments.stop_after);
  app.add_option("--die-rank", arguments.die_rank);
  app.add_option("--die-after", arguments.die_after);
  app.add_option("--memory-limit", arguments.memory_limit_mb);
  app.add_flag("--nudge", arguments.nudge);
  app.add_option("--export", arguments.export_to);
  app.add_option("--job", arguments.job_output);
  app.add_option("--checkpoint-every", arguments.checkpoint_every);
  app.add_option("--resume-from", arguments.resume_from);
  app.add_flag("--bf16", arguments.bf16);
  app.add_option("--dropout", arguments.dropout);
  app.add_option("--profile", arguments.profiled_step);
  app.add_flag("--keep-weights", arguments.keep_weights);
  app.add_flag("--reduce-once", arguments.reduce_once);
  app.add_flag("--preference", arguments.preference);
  app.add_option("--teacher", arguments.teacher);
  app.add_flag("--reward", arguments.reward);
  app.add_option("--epoch", arguments.epoch);
  const std::map<std::string, AdapterExport> adapters = {
      {"adapter", AdapterExport::kAdapter}, {"merged", AdapterExport::kMerged}, {"both", AdapterExport::kBoth}};
  app.add_option("--adapters", arguments.adapters)->transform(CLI::CheckedTransformer(adapters));
  CLI11_PARSE(app, argc, argv);
  // Python starts once, before there are ranks: it takes seconds, and threads it has none yet.
  if (arguments.hf) Value(OpenSource(arguments));
  const ProbeRank rank = StartRanks(arguments.world);
  // A line at a time, for ranks share the pipe. With a buffer of its own: where Python left the stream without one, the
  // C library would go on with a single byte.
  static char buffer[BUFSIZ];
  std::setvbuf(stdout, buffer, _IOLBF, sizeof(buffer));
  ops::InitializeVectorMath();
  at::set_num_threads(1);

  StopSignal stop;
  Printer printer(arguments, rank.rendezvous.rank, stop);
  std::string end;
  try {
    end = Run(arguments, rank.rendezvous, printer, stop);
  } catch (const std::exception& error) {
    end = error.what();
  }
  for (char& c : end) c = c == '"' || c == '\\' || c == '\n' ? ' ' : c;
  const std::string line = absl::StrCat("{\"rank\": ", rank.rendezvous.rank, ", \"steps\": ", printer.steps(),
                                        ", \"end\": \"", end, "\", \"peak_bytes\": ", MemoryStatus("VmHWM:"), "}\n");
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
  return rank.WaitForOthers();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) { return temper::Main(argc, argv); }
