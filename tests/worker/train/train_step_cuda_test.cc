// SPDX-License-Identifier: Apache-2.0
// Training steps on a GPU are those of the CPU, and repeat to the bit.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "worker/model/gradient.h"
#include "worker/model/lora.h"
#include "worker/model/transformer.h"
#include "worker/train/adamw.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

struct Variant {
  const char* name;
  std::function<void(ModelConfig&, TransformerOptions&)> change;
};

// Every mechanism that computes something of its own.
const std::vector<Variant> kVariants = {
    {"Plain", [](ModelConfig&, TransformerOptions&) {}},
    {"TiedAndScaled",
     [](ModelConfig& config, TransformerOptions&) {
       config.tied_head = true;
       config.embedding_scale = 3.5;
       config.logits = {.scale = 0.7, .softcap = 5.0};
     }},
    {"NormsOfHeads",
     [](ModelConfig& config, TransformerOptions&) {
       config.attention.qk_norm = QkNorm::kPerHead;
       config.attention.qkv_bias = true;
     }},
    {"NormsOfAllHeads",
     [](ModelConfig& config, TransformerOptions&) { config.attention.qk_norm = QkNorm::kFullWidth; }},
    {"WindowAndSinks",
     [](ModelConfig& config, TransformerOptions&) {
       config.attention.sinks = true;
       config.layers.assign(2, {});
       config.layers[0].window = 5;
     }},
    {"CappedScores", [](ModelConfig& config, TransformerOptions&) { config.attention.softcap = 2.0; }},
    {"Experts",
     [](ModelConfig& config, TransformerOptions&) {
       config.moe = {.num_experts = 4, .top_k = 2, .intermediate_size = 24, .balance_coefficient = 0.1};
       config.layers.assign(2, {});
       for (LayerConfig& layer : config.layers) layer.experts = true;
     }},
    {"Lora",
     [](ModelConfig&, TransformerOptions& options) {
       options.lora = LoraConfig{.rank = 4, .sites = {{"layers.0.attn.q"}, {"layers.1.mlp.down"}, {"embed"}}};
     }},
    {"Dora",
     [](ModelConfig&, TransformerOptions& options) {
       options.lora = LoraConfig{.rank = 4, .dora = true, .sites = {{"layers.0.attn.v"}, {"layers.1.mlp.gate"}}};
     }},
};

std::unique_ptr<Transformer> MakeModel(const Variant& variant, at::ScalarType dtype, at::Device device) {
  ModelConfig config;
  config.hidden_size = 32;
  config.num_layers = 2;
  config.vocab_size = 100;
  config.attention = {.num_heads = 4, .num_kv_heads = 2, .head_dim = 8, .scale = 0.35};
  config.feed_forward.intermediate_size = 48;
  TransformerOptions options{.dtype = dtype, .device = device};
  variant.change(config, options);
  auto model = std::make_unique<Transformer>(config, options);
  at::manual_seed(3);
  for (const WeightView& view : model->views()) StoreMaster(view, at::randn(view.shape()) * 0.3);
  model->InitLora();
  // B is zero at first, and A has no gradient then.
  for (LoraAdapter* adapter : model->adapters()) {
    StoreMaster({adapter->b_OR.name, &adapter->b_OR, 0, adapter->b_OR.weight.size(0)},
                at::randn(adapter->b_OR.weight.sizes()) * 0.1);
  }
  return model;
}

MicroBatch TwoDocuments() {
  MicroBatch batch;
  batch.document_starts = {0, 23, 40};
  batch.capacity = 40;
  for (int64_t i = 0; i < 40; ++i) {
    batch.tokens_T.push_back(i * 37 % 100);
    batch.targets_T.push_back((i + 1) * 37 % 100);
    batch.positions_T.push_back(i < 23 ? i : i - 23);
    batch.loss_mask_T.push_back(i % 3 != 0 && i != 22);
  }
  return batch;
}

double StepOf(Transformer& model) { return ForwardBackward(model, TwoDocuments(), SupervisedObjective(0, 0), 25).loss; }

double Difference(const at::Tensor& value, const at::Tensor& reference) {
  return (at::linalg_vector_norm(value.cpu() - reference) / at::linalg_vector_norm(reference)).item<double>();
}

class CudaTrainStepTest : public testing::TestWithParam<Variant> {};

TEST_P(CudaTrainStepTest, Fp32_LossAndGradientsAreTheCpus) {
  const auto on_cpu = MakeModel(GetParam(), at::kFloat, at::kCPU);
  const auto on_gpu = MakeModel(GetParam(), at::kFloat, at::Device("cuda:0"));
  const double loss = StepOf(*on_cpu);
  EXPECT_NEAR(StepOf(*on_gpu), loss, 1e-5 * loss);
  EXPECT_NEAR(GlobalGradientNorm(on_gpu->parameters()), GlobalGradientNorm(on_cpu->parameters()),
              1e-5 * GlobalGradientNorm(on_cpu->parameters()));
  int compared = 0;
  for (size_t i = 0; i < on_cpu->parameters().size(); ++i) {
    const Parameter &reference = *on_cpu->parameters()[i], &parameter = *on_gpu->parameters()[i];
    if (!reference.trainable) continue;
    EXPECT_LE(Difference(parameter.gradient, reference.gradient), 1e-4) << reference.name;
    ++compared;
  }
  EXPECT_GT(compared, 2);
}

TEST_P(CudaTrainStepTest, Bf16_TrainsAsTheCpuDoes) {
  const auto on_cpu = MakeModel(GetParam(), at::kBFloat16, at::kCPU);
  const auto on_gpu = MakeModel(GetParam(), at::kBFloat16, at::Device("cuda:0"));
  AdamW cpu_optimizer(on_cpu->parameters(), {.weight_decay = 0.1}),
      gpu_optimizer(on_gpu->parameters(), {.weight_decay = 0.1});
  double first = 0, cpu_loss = 0, gpu_loss = 0;
  for (int step = 0; step < 20; ++step) {
    ZeroGradients(on_cpu->parameters());
    ZeroGradients(on_gpu->parameters());
    cpu_loss = StepOf(*on_cpu);
    gpu_loss = StepOf(*on_gpu);
    if (step == 0) first = cpu_loss;
    EXPECT_NEAR(gpu_loss, cpu_loss, 0.02 * first) << "step " << step;
    cpu_optimizer.Step(3e-3, 1.0);
    gpu_optimizer.Step(3e-3, 1.0);
  }
  EXPECT_LT(gpu_loss, 0.97 * first);
}

TEST_P(CudaTrainStepTest, RunTwice_WeightsAreTheSameBits) {
  std::vector<std::vector<at::Tensor>> runs;
  for (int run = 0; run < 2; ++run) {
    const auto model = MakeModel(GetParam(), at::kBFloat16, at::Device("cuda:0"));
    AdamW optimizer(model->parameters(), {});
    for (int step = 0; step < 3; ++step) {
      ZeroGradients(model->parameters());
      StepOf(*model);
      optimizer.Step(1e-3, 1.0);
    }
    runs.emplace_back();
    for (const Parameter* parameter : model->parameters()) runs.back().push_back(parameter->weight.detach().cpu());
  }
  for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(at::equal(runs[0][i], runs[1][i])) << "parameter " << i;
}

INSTANTIATE_TEST_SUITE_P(Mechanisms, CudaTrainStepTest, testing::ValuesIn(kVariants),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace temper
