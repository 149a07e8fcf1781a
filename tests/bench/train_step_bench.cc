// SPDX-License-Identifier: Apache-2.0
// Training steps on one fixed micro-batch of packed documents: seconds of each phase (medians).
//   build/release/tests/train_step_bench MODEL_DIRECTORY fp32|bf16 [DOCUMENTS LENGTH [STEPS [profile|compare]]]
// profile: also what each operator took of the last step, without what it called. compare: every step is taken twice,
// with the CPU's kernels and with plain ATen.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "worker/checkpoint/native_model.h"
#include "worker/data/micro_batch.h"
#include "worker/model/gradient.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/matmul_peak.h"
#include "worker/ops/vector_math.h"
#include "worker/train/adamw.h"
#include "worker/train/objective.h"
#include "worker/train/step_metrics.h"
#include "worker/train/stopwatch.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

MicroBatch MakeBatch(int64_t documents, int64_t length) {
  at::manual_seed(1);
  const at::Tensor tokens = at::randint(0, 32000, {documents * length}, at::kLong);
  MicroBatch batch;
  batch.capacity = documents * length;
  batch.document_starts = {0};
  for (int64_t document = 0; document < documents; ++document) {
    for (int64_t i = 0; i < length; ++i) {
      const bool last = i + 1 == length;
      batch.tokens_T.push_back(tokens[document * length + i].item<int64_t>());
      batch.targets_T.push_back(last ? 0 : tokens[document * length + i + 1].item<int64_t>());
      batch.positions_T.push_back(i);
      batch.loss_mask_T.push_back(last ? 0 : 1);
    }
    batch.document_starts.push_back((document + 1) * length);
  }
  return batch;
}

struct Operator {
  double milliseconds = 0;
  int64_t calls = 0;
};

// Time of each name on the thread that takes the steps, what it called taken out.
std::map<std::string, Operator> SelfTimes(const std::vector<torch::autograd::profiler::KinetoEvent>& events) {
  using Event = torch::autograd::profiler::KinetoEvent;
  std::map<uint64_t, std::vector<const Event*>> threads;
  for (const Event& event : events) threads[event.startThreadId()].push_back(&event);
  std::map<std::string, Operator> operators;
  for (auto& [thread, list] : threads) {
    std::sort(list.begin(), list.end(), [](const Event* a, const Event* b) {
      return a->startNs() != b->startNs() ? a->startNs() < b->startNs() : a->durationNs() > b->durationNs();
    });
    std::vector<const Event*> open;
    for (const Event* event : list) {
      while (!open.empty() && open.back()->startNs() + open.back()->durationNs() <= event->startNs()) open.pop_back();
      const double milliseconds = static_cast<double>(event->durationNs()) / 1e6;
      if (!open.empty()) operators[open.back()->name()].milliseconds -= milliseconds;
      operators[event->name()].milliseconds += milliseconds;
      ++operators[event->name()].calls;
      open.push_back(event);
    }
  }
  return operators;
}

void PrintProfile(const std::map<std::string, Operator>& operators) {
  std::vector<std::pair<std::string, Operator>> sorted(operators.begin(), operators.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.milliseconds > b.second.milliseconds; });
  for (size_t i = 0; i < std::min<size_t>(sorted.size(), 40); ++i) {
    std::printf("%9.1f ms %6ld  %s\n", sorted[i].second.milliseconds, sorted[i].second.calls, sorted[i].first.c_str());
  }
}

struct Options {
  at::ScalarType dtype = at::kBFloat16;
  int64_t documents = 2, length = 512;
  int steps = 5;
  bool profile = false, compare = false;
};

// Seconds of each step, by what they were spent on.
struct Phases {
  std::vector<double> forward, backward, norm, update, all;
};

class StepBench {
 public:
  StepBench(Transformer& model, const Options& options)
      : options_(options),
        model_(model),
        optimizer_(model.parameters(), {.weight_decay = 0.1}),
        batch_(MakeBatch(options.documents, options.length)),
        work_(CountWork(model.flop_rates(), {batch_})) {}

  void Run() {
    const ops::cpu::InstructionSet best = ops::cpu::Kernels();
    std::vector<ops::cpu::InstructionSet> contenders = {best};
    if (options_.compare && best != ops::cpu::InstructionSet::kNone) {
      contenders.push_back(ops::cpu::InstructionSet::kNone);
    }
    std::vector<Phases> phases(contenders.size());
    for (int step = 0; step <= options_.steps; ++step) {
      for (size_t i = 0; i < contenders.size(); ++i) {
        ops::cpu::UseKernels(contenders[i]);
        const bool recorded = options_.profile && step == options_.steps;
        if (recorded) StartRecording();
        TakeStep(ops::cpu::Name(contenders[i]), step > 0 && !recorded ? &phases[i] : nullptr);
        if (recorded) PrintProfile(SelfTimes(torch::autograd::profiler::disableProfiler()->events()));
      }
    }
    for (size_t i = 0; i < contenders.size(); ++i) Report(ops::cpu::Name(contenders[i]), phases[i]);
  }

 private:
  static void StartRecording() {
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
    const std::set<torch::profiler::impl::ActivityType> activities = {torch::profiler::impl::ActivityType::CPU};
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities);
  }

  void TakeStep(std::string_view kernels, Phases* phases) {
    Stopwatch whole, watch;
    StepPhases times;
    ZeroGradients(model_.parameters());
    const double loss = ForwardBackward(model_, batch_, objective_, static_cast<double>(work_.scored_tokens), &times);
    watch.Lap();
    const double norm = GlobalGradientNorm(model_.parameters());
    const double norm_seconds = watch.Lap();
    optimizer_.Step(1e-6, ClipScale(norm, 1.0));
    const double update_seconds = watch.Lap(), seconds = whole.Lap();
    std::printf("%-8s %.3f s, loss %.7f, gradient norm %.7f\n", std::string(kernels).c_str(), seconds, loss, norm);
    std::fflush(stdout);
    if (phases == nullptr) return;
    phases->forward.push_back(times.forward);
    phases->backward.push_back(times.backward);
    phases->norm.push_back(norm_seconds);
    phases->update.push_back(update_seconds);
    phases->all.push_back(seconds);
  }

  void Report(std::string_view kernels, const Phases& phases) const {
    if (phases.all.empty()) return;
    const double seconds = Median(phases.all), peak = ops::MeasureMatmulPeak(options_.dtype);
    std::printf(
        "%-8s forward %.3f s, backward %.3f s, norm %.3f s, AdamW %.3f s, step %.3f s: %.0f tokens/s, MFU %.1f %% of "
        "%.0f GFLOP/s, peak memory %.2f GB, %d threads\n",
        std::string(kernels).c_str(), Median(phases.forward), Median(phases.backward), Median(phases.norm),
        Median(phases.update), seconds, static_cast<double>(batch_.num_tokens()) / seconds,
        100 * ModelFlops(model_.flop_rates(), work_) / (seconds * peak), peak / 1e9,
        static_cast<double>(PeakMemoryBytes()) / 1e9, at::get_num_threads());
  }

  Options options_;
  Transformer& model_;
  AdamW optimizer_;
  const SupervisedObjective objective_{0, 0};
  MicroBatch batch_;
  StepWork work_;
};

int Run(const char* directory, const Options& options) {
  const auto source = OpenNativeRepository(directory);
  if (!source.ok()) return std::cerr << source.status() << "\n", 1;
  const auto model = LoadTransformer(*source, {.dtype = options.dtype});
  if (!model.ok()) return std::cerr << model.status() << "\n", 1;
  StepBench(**model, options).Run();
  return 0;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc < 3) {
    return std::fprintf(stderr,
                        "usage: train_step_bench MODEL fp32|bf16 [DOCUMENTS LENGTH [STEPS [profile|compare]]]\n"),
           2;
  }
  temper::ops::InitializeVectorMath();
  const auto number = [&](int index, int64_t otherwise) { return argc > index ? std::atol(argv[index]) : otherwise; };
  const std::string last = argv[argc - 1];
  return temper::Run(argv[1], {.dtype = std::string(argv[2]) == "bf16" ? at::kBFloat16 : at::kFloat,
                               .documents = number(3, 2),
                               .length = number(4, 512),
                               .steps = static_cast<int>(number(5, 5)),
                               .profile = last == "profile",
                               .compare = last == "compare"});
}
