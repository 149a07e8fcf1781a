// SPDX-License-Identifier: Apache-2.0
// Training steps on one fixed micro-batch of packed documents: seconds of each phase (medians).
//   build/release/tests/train_step_bench MODEL_DIRECTORY fp32|bf16 [DOCUMENTS LENGTH [STEPS]] [OPTION…]
// Options:
//   profile  also what each operator took of the last step, without what it called; on a GPU, each kernel
//   compare  every step is taken twice, with the CPU's kernels and with plain ATen
//   cuda     on the GPU. Its work is asynchronous: "forward" and "backward" say when it had all been handed out
//   random   random weights: the directory needs no more than a config.json
//   lora     the base model is frozen, adapters of rank 16 on all of its linear maps train
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "worker/checkpoint/native_model.h"
#include "worker/data/micro_batch.h"
#include "worker/families/families.h"
#include "worker/model/gradient.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/matmul_peak.h"
#include "worker/ops/synchronize.h"
#include "worker/ops/vector_math.h"
#include "worker/train/adamw.h"
#include "worker/train/device.h"
#include "worker/train/objective.h"
#include "worker/train/phase_watch.h"
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

using Event = torch::autograd::profiler::KinetoEvent;

std::map<std::string, Operator> KernelTimes(const std::vector<Event>& events) {
  std::map<std::string, Operator> kernels;
  for (const Event& event : events) {
    if (event.deviceType() == c10::DeviceType::CPU) continue;
    kernels[event.name()].milliseconds += static_cast<double>(event.durationNs()) / 1e6;
    ++kernels[event.name()].calls;
  }
  return kernels;
}

// Time of each name on the thread that takes the steps, what it called taken out.
std::map<std::string, Operator> SelfTimes(const std::vector<Event>& events) {
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
    std::printf("%9.2f ms %6ld  %s\n", sorted[i].second.milliseconds, sorted[i].second.calls,
                sorted[i].first.substr(0, 110).c_str());
  }
}

struct Options {
  at::ScalarType dtype = at::kBFloat16;
  int64_t documents = 2, length = 512;
  int steps = 5;
  bool profile = false, compare = false, random = false, lora = false;
  at::Device device = at::kCPU;
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
        work_(CountWork(model.flop_rates(), {batch_}, objective_)) {}

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
        if (recorded) StopRecording();
      }
    }
    for (size_t i = 0; i < contenders.size(); ++i) Report(ops::cpu::Name(contenders[i]), phases[i]);
  }

 private:
  void StartRecording() const {
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
    std::set<torch::profiler::impl::ActivityType> activities = {torch::profiler::impl::ActivityType::CPU};
    if (!options_.device.is_cpu()) activities.insert(torch::profiler::impl::ActivityType::CUDA);
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities);
  }

  void StopRecording() const {
    const auto result = torch::autograd::profiler::disableProfiler();
    if (!options_.device.is_cpu()) PrintProfile(KernelTimes(result->events()));
    PrintProfile(SelfTimes(result->events()));
  }

  void TakeStep(std::string_view kernels, Phases* phases) {
    Stopwatch whole, watch;
    StepPhases times;
    ZeroGradients(model_.parameters());
    const Gang alone;
    PhaseWatch phase_watch(alone, options_.device, times);
    const double loss = ForwardBackward(model_, batch_, objective_, work_.normalizer, &phase_watch).loss;
    watch.Lap();
    const double norm = GlobalGradientNorm(model_.parameters());
    const double norm_seconds = watch.Lap();
    optimizer_.Step(1e-6, ClipScale(norm, 1.0));
    ops::Synchronize(options_.device);
    const double update_seconds = watch.Lap(), seconds = whole.Lap();
    std::printf("%-8s %.4f s, loss %.7f, gradient norm %.7f\n", std::string(kernels).c_str(), seconds, loss, norm);
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
    const double seconds = Median(phases.all), peak = ops::MeasureMatmulPeak(options_.dtype, options_.device);
    std::printf(
        "%-8s forward %.4f s, backward %.4f s, norm %.4f s, AdamW %.4f s, step %.4f s: %.0f tokens/s, MFU %.1f %% of "
        "%.0f GFLOP/s, peak memory %.2f GB, %d threads\n",
        std::string(kernels).c_str(), Median(phases.forward), Median(phases.backward), Median(phases.norm),
        Median(phases.update), seconds, static_cast<double>(batch_.num_tokens()) / seconds,
        100 * ModelFlops(model_.flop_rates(), work_) / (seconds * peak), peak / 1e9, PeakMemory() / 1e9,
        at::get_num_threads());
  }

  double PeakMemory() const { return static_cast<double>(PeakMemoryBytes(model_.device())); }

  Options options_;
  Transformer& model_;
  AdamW optimizer_;
  const SupervisedObjective objective_{0, 0};
  MicroBatch batch_;
  StepWork work_;
};

// Adapters on all linear maps of a model without experts.
LoraConfig AllLinear(int64_t num_layers) {
  LoraConfig lora;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    for (const char* map : {"attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down"}) {
      lora.sites.push_back({.name = "layers." + std::to_string(layer) + "." + map});
    }
  }
  return lora;
}

std::unique_ptr<Transformer> RandomModel(const ModelConfig& config, const TransformerOptions& options) {
  auto model = std::make_unique<Transformer>(config, options);
  at::manual_seed(2);
  for (const WeightView& view : model->views()) {
    StoreMaster(view, at::randn(view.shape(), at::TensorOptions(options.device)).mul_(0.02));
  }
  model->InitLora();
  return model;
}

absl::StatusOr<ModelConfig> ReadConfig(const std::string& directory) {
  const auto config = nlohmann::ordered_json::parse(std::ifstream(directory + "/config.json"));
  const auto family = FindFamily(config);
  if (!family.ok()) return family.status();
  return ConfigureModel(**family, config);
}

absl::StatusOr<std::unique_ptr<Transformer>> MakeModel(const std::string& directory, const Options& options) {
  const auto config = ReadConfig(directory);
  if (!config.ok()) return config.status();
  TransformerOptions how{.dtype = options.dtype, .device = options.device};
  if (options.lora) how.lora = AllLinear(config->num_layers);
  if (options.random) return RandomModel(*config, how);
  const auto source = OpenNativeRepository(directory);
  if (!source.ok()) return source.status();
  return LoadTransformer(*source, how);
}

int Run(const std::string& directory, const Options& options) {
  const auto model = MakeModel(directory, options);
  if (!model.ok()) return std::cerr << model.status() << "\n", 1;
  StepBench(**model, options).Run();
  return 0;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  std::vector<std::string> values;
  std::set<std::string> words;
  for (const std::string& argument : arguments) {
    const bool word = std::set<std::string>{"profile", "compare", "cuda", "random", "lora"}.contains(argument);
    word ? static_cast<void>(words.insert(argument)) : values.push_back(argument);
  }
  if (values.size() < 2) return std::fprintf(stderr, "usage: see the top of train_step_bench.cc\n"), 2;
  temper::ops::InitializeVectorMath();
  const auto number = [&](size_t index, int64_t otherwise) {
    return values.size() > index ? std::stol(values[index]) : otherwise;
  };
  return temper::Run(values[0], {.dtype = values[1] == "bf16" ? at::kBFloat16 : at::kFloat,
                                 .documents = number(2, 2),
                                 .length = number(3, 512),
                                 .steps = static_cast<int>(number(4, 5)),
                                 .profile = words.contains("profile"),
                                 .compare = words.contains("compare"),
                                 .random = words.contains("random"),
                                 .lora = words.contains("lora"),
                                 .device = words.contains("cuda") ? at::Device("cuda:0") : at::Device(at::kCPU)});
}
