// SPDX-License-Identifier: Apache-2.0
// A whole job on a GPU: data, steps, checkpoints, export; against the same job on the CPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/worker/checkpoint/tiny_llama.h"
#include "tests/worker/text/model_directory.h"
#include "tests/worker/train/silent_observer.h"
#include "worker/train/trainer.h"

namespace temper {
namespace {

constexpr int kSteps = 6;

class Listener : public SilentObserver {
 public:
  void OnStep(const StepMetrics& metrics) override { steps.push_back(metrics); }
  void OnCheckpoint(const CheckpointReport& report) override { checkpoints.push_back(report.uri); }
  void OnExport(const ExportSummary& summary) override { exported = summary; }

  std::vector<StepMetrics> steps;
  std::vector<std::string> checkpoints;
  ExportSummary exported;
};

class CudaTrainerTest : public testing::Test {
 protected:
  CudaTrainerTest() {
    const std::filesystem::path model = directory_.path() / "model";
    WriteTinyLlama(model, at::kFloat);
    WriteFile(model / "tokenizer.json", ModelDirectory::kWordTokenizer);
    WriteFile(model / "tokenizer_config.json", R"({"eos_token": "<end>"})");
    std::string lines;
    for (int i = 0; i < 40; ++i)
      lines += i % 3 == 0 ? R"({"text": "noir noir café noir"})"
                            "\n"
                          : R"({"text": "café noir"})"
                            "\n";
    WriteFile(directory_.path() / "data.jsonl", lines);
  }

  TrainJob Job(const std::string& id, DeviceKind device) {
    TrainJob job;
    job.job_id = id;
    job.device = device;
    job.model_uri = (directory_.path() / "model").string();
    job.data.sources = {{.uri = (directory_.path() / "data.jsonl").string(), .columns = {}}};
    job.training.steps = kSteps;
    job.training.tokens_per_step = 64;
    job.training.micro_batch_tokens = 32;
    job.training.learning_rate = 1e-2;
    job.training.precision = Precision::kFp32;
    job.checkpoint_options.every_steps = 3;
    job.output.uri = directory_.path().string();
    return job;
  }

  Listener Train(const TrainJob& job) {
    Listener listener;
    StopSignal stop;
    const absl::Status status = RunTrainJob(job, listener, stop);
    EXPECT_TRUE(status.ok()) << status;
    return listener;
  }

  // Every weight of an export, one after the other.
  static at::Tensor Weights(const Listener& of) {
    std::vector<at::Tensor> all;
    const auto model = LoadTransformer(*OpenNativeRepository(of.exported.uri), {});
    for (const WeightView& view : (*model)->views()) all.push_back(LoadMaster(view).flatten());
    return at::cat(all);
  }

  TemporaryDirectory directory_;
};

TEST_F(CudaTrainerTest, WholeJob_LearnsWhatTheCpuLearns) {
  for (const bool adapters : {false, true}) {
    TrainJob on_cpu = Job(adapters ? "cpu-lora" : "cpu", DeviceKind::kCpu),
             on_gpu = Job(adapters ? "gpu-lora" : "gpu", DeviceKind::kCuda);
    for (TrainJob* job : {&on_cpu, &on_gpu}) {
      if (adapters) job->lora = LoraOptions{.rank = 4, .targets = {"all-linear"}};
      job->output.adapters = AdapterExport::kMerged;
    }
    const Listener cpu = Train(on_cpu), gpu = Train(on_gpu);
    ASSERT_EQ(gpu.steps.size(), kSteps);
    for (int i = 0; i < kSteps; ++i) {
      EXPECT_NEAR(gpu.steps[i].loss, cpu.steps[i].loss, 1e-4 * cpu.steps[i].loss) << "step " << i + 1;
      EXPECT_GT(gpu.steps[i].peak_memory_bytes, 0);
    }
    const at::Tensor expected = Weights(cpu), found = Weights(gpu);
    EXPECT_LE(((found - expected).norm() / expected.norm()).item<double>(), 1e-4);
  }
}

TEST_F(CudaTrainerTest, Resumed_IsTheSameBits) {
  const Listener whole = Train(Job("whole", DeviceKind::kCuda));
  ASSERT_FALSE(whole.checkpoints.empty());
  TrainJob again = Job("again", DeviceKind::kCuda);
  again.resume_from = whole.checkpoints.front();
  const Listener resumed = Train(again);
  ASSERT_EQ(resumed.steps.size(), kSteps - 3);
  EXPECT_EQ(resumed.steps.back().loss, whole.steps.back().loss);
  EXPECT_TRUE(at::equal(Weights(resumed), Weights(whole)));
}

// With new adapters the reference is another pass; of all weights it is stored, and read from there.
TEST_F(CudaTrainerTest, PairsOfAnswers_AreLearnedAsOnTheCpu) {
  std::string lines;
  for (int i = 0; i < 20; ++i) {
    lines += R"({"prompt": "noir", "chosen": " café noir", "rejected": " noir noir noir"})"
             "\n";
  }
  WriteFile(directory_.path() / "pairs.jsonl", lines);
  for (const bool adapters : {false, true}) {
    std::vector<Listener> listeners;
    for (const DeviceKind device : {DeviceKind::kCpu, DeviceKind::kCuda}) {
      TrainJob job = Job(absl::StrCat("pairs-", adapters, "-", device == DeviceKind::kCuda), device);
      job.data.sources[0].uri = (directory_.path() / "pairs.jsonl").string();
      job.preference = PreferenceOptions{.beta = 0.5};
      if (adapters) job.lora = LoraOptions{.rank = 4, .targets = {"all-linear"}};
      listeners.push_back(Train(job));
    }
    const Listener &cpu = listeners[0], &gpu = listeners[1];
    ASSERT_EQ(gpu.steps.size(), kSteps);
    for (int i = 0; i < kSteps; ++i) {
      EXPECT_NEAR(gpu.steps[i].loss, cpu.steps[i].loss, 1e-4) << "step " << i + 1;
      for (const auto& [figure, value] : cpu.steps[i].objective) {
        EXPECT_NEAR(gpu.steps[i].objective.at(figure), value, 1e-3) << figure << ", step " << i + 1;
      }
    }
    EXPECT_GT(gpu.steps.back().objective.at("rewards/margins"), 0);
  }
}

// A checkpoint belongs to no kind of device.
TEST_F(CudaTrainerTest, ResumedOnTheCpu_GoesOnAlike) {
  const Listener whole = Train(Job("whole", DeviceKind::kCuda));
  TrainJob again = Job("again", DeviceKind::kCpu);
  again.resume_from = whole.checkpoints.front();
  EXPECT_NEAR(Train(again).steps.back().loss, whole.steps.back().loss, 1e-4);
}

}  // namespace
}  // namespace temper
