// SPDX-License-Identifier: Apache-2.0
// Takes a training's steps on N ranks of this host, each a process: real data, a real step loop, shards. Nothing is
// saved.
//
//   gang_probe MODEL DATA.jsonl --world N --steps S [--lora] [--stop-rank R --stop-after S] [--die-rank R --die-after
//   S]
//
// Rank 0 prints a JSON line a step (step, loss, grad_norm, and where its time went: seconds, communication, phases,
// which is their sum), and one of a validation once all are taken (validation_loss, scored_tokens). Each rank prints
// one when it ends (rank, steps, and end: "done" or what the status says).
// --stop-rank is told to stop, --die-rank kills itself, when the step is over.
#include <ATen/Parallel.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/parity/probe_gang.h"
#include "tests/worker/train/silent_observer.h"
#include "worker/checkpoint/native_model.h"
#include "worker/ops/vector_math.h"
#include "worker/train/adamw.h"
#include "worker/train/checkpointer.h"
#include "worker/train/gang.h"
#include "worker/train/plan_adapters.h"
#include "worker/train/step_loop.h"
#include "worker/train/training_data.h"
#include "worker/train/validation.h"

namespace temper {
namespace {

struct Arguments {
  std::string model, data;
  int world = 1;
  int64_t steps = 4;
  bool lora = false;
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
      std::printf("\"seconds\": %.17g, \"communication\": %.17g, \"phases\": %.17g}\n", metrics.seconds,
                  metrics.phases.communication, metrics.phases.sum());
    }
    if (rank_ == arguments_.stop_rank && metrics.step == arguments_.stop_after) stop_.Request(/*checkpoint=*/true);
    if (rank_ == arguments_.die_rank && metrics.step == arguments_.die_after) kill(getpid(), SIGKILL);
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
  job.data.sources.push_back({.uri = arguments.data});
  if (arguments.lora) job.lora = LoraOptions{.rank = 4, .alpha = 8, .targets = {"all-linear"}};
  job.training = {.steps = arguments.steps,
                  .tokens_per_step = 640,  // five rows: no world from 2 to 4 divides them
                  .micro_batch_tokens = 128,
                  .learning_rate = 5e-3,
                  .precision = Precision::kFp32};
  job.output.uri = "/nowhere";
  return job;
}

// Of other data, which the step loop sees nothing of: the best of its validations would be saved.
MeanLoss ValidateHeldOut(TrainJob job, const ModelConfig& config, const Gang& gang, Transformer& model,
                         TrainObserver& observer, const StopSignal& stop) {
  job.validation = ValidationOptions{.share = 0.2};
  const auto data = Value(TrainingData::Open(job, config, observer, stop.requested()));
  return Value(Validate(gang, model, data->validation()->rows, stop));
}

// Says how the steps ended.
std::string TakeSteps(const TrainJob& job, const ModelConfig& config, const Gang& gang, Transformer& model,
                      TrainObserver& observer, const StopSignal& stop) {
  const auto data = Value(TrainingData::Open(job, config, observer, stop.requested()));
  AdamW optimizer(gang.ParametersOf(model), job.training.adamw);
  const auto store = Value(ObjectStore::Open("/tmp"));
  Checkpointer checkpointer(*store, job, {}, model, optimizer, 0, "", observer);
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

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Takes a training's steps on several ranks.");
  app.add_option("model", arguments.model)->required();
  app.add_option("data", arguments.data)->required();
  app.add_option("--world", arguments.world);
  app.add_option("--steps", arguments.steps);
  app.add_flag("--lora", arguments.lora);
  app.add_option("--stop-rank", arguments.stop_rank);
  app.add_option("--stop-after", arguments.stop_after);
  app.add_option("--die-rank", arguments.die_rank);
  app.add_option("--die-after", arguments.die_after);
  CLI11_PARSE(app, argc, argv);
  const ProbeRank rank = StartRanks(arguments.world);
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  ops::InitializeVectorMath();
  at::set_num_threads(1);

  const TrainJob job = MakeJob(arguments);
  const NativeRepository source = Value(OpenNativeRepository(job.model_uri));
  const auto plan = Value(PlanAdapters(job, source));
  const auto model = Value(LoadTransformer(
      source, plan != nullptr ? plan->ModelOptions(at::kFloat, /*seed=*/0) : TransformerOptions{.dtype = at::kFloat}));
  StopSignal stop;
  Printer printer(arguments, rank.rendezvous.rank, stop);
  std::string end;
  try {
    if (arguments.world == 1) {
      end = TakeSteps(job, source.config, Gang(), *model, printer, stop);
    } else {
      const auto group = Value(ProcessGroup::Connect(rank.rendezvous));
      const ShardedModel sharded(*model, *group);
      end = TakeSteps(job, source.config, Gang(*group, sharded), *model, printer, stop);
    }
  } catch (const CollectiveError& error) {
    end = error.what();
  }
  for (char& c : end) c = c == '"' || c == '\\' || c == '\n' ? ' ' : c;
  const std::string line = absl::StrCat("{\"rank\": ", rank.rendezvous.rank, ", \"steps\": ", printer.steps(),
                                        ", \"end\": \"", end, "\"}\n");
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
  return rank.WaitForOthers();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) { return temper::Main(argc, argv); }
