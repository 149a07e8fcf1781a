// SPDX-License-Identifier: Apache-2.0
#include "worker/train/model_export.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "common/failure.h"
#include "tests/worker/checkpoint/tiny_llama.h"
#include "tests/worker/train/silent_observer.h"
#include "worker/train/export_comparison.h"

namespace temper {
namespace {

constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
  "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
  "vocab_size": 40, "max_position_embeddings": 64, "tie_word_embeddings": true, "torch_dtype": "bfloat16"})";

NamedTensors Weights() {
  NamedTensors tensors = TinyLlamaTensors(at::kBFloat16);
  // All tokens alike: the smallest difference between their rows decides.
  at::Tensor &embedding = tensors.front().second, &final_norm = tensors.back().second;
  embedding = embedding.narrow(0, 0, 1).expand({40, 16}).contiguous();
  final_norm = final_norm * 400;
  return tensors;
}

MicroBatch Sample() {
  MicroBatch batch;
  for (int64_t i = 0; i < 12; ++i) {
    batch.tokens_T.push_back(i * 3 % 40);
    batch.targets_T.push_back((i + 1) * 3 % 40);
    batch.positions_T.push_back(i);
    batch.loss_mask_T.push_back(i < 11);
  }
  batch.document_starts = {0, 12};
  batch.capacity = 12;
  return batch;
}

class RecordingObserver : public SilentObserver {
 public:
  void OnLog(LogSeverity severity, const std::string& text) override {
    if (severity == LogSeverity::kWarning) warnings.push_back(text);
  }
  std::vector<std::string> warnings;
};

// A bf16 checkpoint, trained by as much as `change` makes of a weight's master.
class ModelExportTest : public ::testing::Test {
 protected:
  ModelExportTest() {
    std::filesystem::create_directories(directory_.path() / "model");
    WriteFile(directory_.path() / "model/config.json", kConfig);
    WriteFile(directory_.path() / "model/model.safetensors", SafetensorsBytes(Weights()));
    job_.job_id = "job";
    store_ = *ObjectStore::Open(directory_.path().string());
  }

  absl::StatusOr<ExportSummary> Export(const std::function<at::Tensor(const at::Tensor&)>& change) {
    const NativeRepository source = *OpenNativeRepository((directory_.path() / "model").string());
    const auto model = *LoadTransformer(source, {});
    for (const WeightView& view : model->views()) StoreMaster(view, change(LoadMaster(view)));
    return ExportAndProve(*store_, job_, Gang(), source, {}, *model, Sample(), StopSignal(), observer_, verifier_);
  }

  TemporaryDirectory directory_;
  TrainJob job_;
  std::unique_ptr<ObjectStore> store_;
  RecordingObserver observer_;
  ExportVerifier verifier_;
};

TEST_F(ModelExportTest, Untrained_IsProvedWithoutLoss) {
  const auto exported = Export([](const at::Tensor& master) { return master; });
  ASSERT_TRUE(exported.ok()) << exported.status();
  const auto proof = nlohmann::json::parse(exported->proof);
  EXPECT_EQ(proof["rounding"]["mean_token_kl"], 0.0);
  EXPECT_FALSE(proof.contains("transformers"));  // nobody was there to ask
  EXPECT_TRUE(observer_.warnings.empty());
}

TEST_F(ModelExportTest, Verifier_GetsTheExportAndItsVerdictIsKept) {
  std::string uri;
  verifier_ = [&](const VerifiedExport& exported) {
    EXPECT_EQ(exported.adapter, "");
    EXPECT_EQ(exported.layers_at_a_time, 0);
    const std::string& export_uri = exported.model;
    uri = export_uri;
    EXPECT_TRUE(OpenNativeRepository(export_uri).ok());
    return nlohmann::json{{"passed", true}, {"max_kl", 1e-12}};
  };
  const auto exported = Export([](const at::Tensor& master) { return master; });
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_EQ(uri, exported->uri);
  EXPECT_EQ(nlohmann::json::parse(exported->proof)["transformers"]["max_kl"], 1e-12);
  EXPECT_TRUE(observer_.warnings.empty());
}

TEST(LayersToCompareTest, GoesByMemory) {
  ModelConfig config = {.hidden_size = 16, .num_layers = 4, .vocab_size = 64, .max_positions = 64};
  config.attention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 8, .scale = 0.3};
  config.feed_forward.intermediate_size = 24;
  const Transformer model(config, {});
  int64_t all = 0, layer = 0;
  for (const Parameter* parameter : model.parameters()) all += parameter->weight.numel();
  for (const Parameter* parameter : model.unit_parameters(0)) layer += parameter->weight.numel();
  // Both models in fp32, and Python's own.
  const auto bytes = [](int64_t elements) { return (int64_t{1} << 30) + 2 * 4 * elements; };
  EXPECT_EQ(LayersToCompare(model, config, bytes(all)), 0);
  EXPECT_EQ(LayersToCompare(model, config, bytes(all) - 1), 2);
  EXPECT_EQ(LayersToCompare(model, config, bytes(all - 2 * layer)), 2);
  EXPECT_EQ(LayersToCompare(model, config, bytes(all - 2 * layer) - 1), std::nullopt);
}

TEST_F(ModelExportTest, VerifierThatFindsADifference_Warns) {
  verifier_ = [](const VerifiedExport&) { return nlohmann::json{{"passed", false}, {"reasons", {"largest KL is 1"}}}; };
  const auto exported = Export([](const at::Tensor& master) { return master; });
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_EQ(nlohmann::json::parse(exported->proof)["transformers"]["passed"], false);
  ASSERT_EQ(observer_.warnings.size(), 1u);
  EXPECT_NE(observer_.warnings[0].find("something else from the export: largest KL is 1"), std::string::npos);
}

TEST_F(ModelExportTest, VerifierThatCannotCompare_WarnsAndSaysSo) {
  verifier_ = [](const VerifiedExport&) { return absl::UnavailableError("no Python here"); };
  const auto exported = Export([](const at::Tensor& master) { return master; });
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_EQ(nlohmann::json::parse(exported->proof)["transformers"]["skipped"], "no Python here");
  ASSERT_EQ(observer_.warnings.size(), 1u);
  EXPECT_NE(observer_.warnings[0].find("was not compared with transformers' model: no Python here"), std::string::npos);
}

// A first step moves every weight by the learning rate, and bf16 rounds most of that away: the export computes
// something else than the trained model and is sound all the same.
TEST_F(ModelExportTest, UpdateThatRoundingTakesAway_IsProvedWithAWarning) {
  const auto exported =
      Export([](const at::Tensor& master) { return master * (1 + 0.0019 * at::randn_like(master).sign()); });
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_GT(nlohmann::json::parse(exported->proof)["rounding"]["mean_token_kl"], 1e-2);
  EXPECT_EQ(observer_.warnings.size(), 1u);
}

TEST_F(ModelExportTest, NotFinite_IsRefusedAndLeavesNothing) {
  const auto exported = Export([](const at::Tensor& master) { return master * std::nan(""); });
  EXPECT_EQ(CauseOf(exported.status()), FailureCause::kNumerics);
  EXPECT_TRUE(store_->List("job")->empty());
}

}  // namespace
}  // namespace temper
