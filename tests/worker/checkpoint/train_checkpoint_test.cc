// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/train_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/failure.h"
#include "tests/worker/checkpoint/tiny_llama.h"

namespace temper {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// Moments of every trainable parameter; training has left its traces everywhere.
struct Training {
  std::unique_ptr<Transformer> model;
  std::vector<Moments> moments;

  explicit Training(std::unique_ptr<Transformer> loaded) : model(std::move(loaded)) {
    for (Parameter* parameter : model->parameters()) {
      if (!parameter->trainable) continue;
      const auto like = at::zeros(parameter->weight.sizes(), at::kFloat);
      moments.push_back({parameter, like, like.clone()});
    }
    EXPECT_FALSE(moments.empty());
  }

  // All but the rows without a name, which get no gradient.
  void Train() {
    std::vector<WeightView> parts;
    for (const WeightView& view : model->views()) {
      if (view.parameter->trainable) parts.push_back(view);
    }
    for (LoraAdapter* adapter : model->adapters()) {
      parts.push_back(Whole(adapter->a_RI));
      parts.push_back(Whole(adapter->b_OR));
    }
    for (const WeightView& part : parts) StoreMaster(part, LoadMaster(part) + at::randn(part.shape()) * 1e-3);
    for (Moments& state : moments) {
      const WeightView whole = Whole(*state.parameter);
      state.first.copy_(at::randn(whole.shape()));
      state.second.copy_(at::rand(whole.shape()));
    }
  }

  static WeightView Whole(Parameter& parameter) { return {parameter.name, &parameter, 0, parameter.weight.size(0)}; }
};

void ExpectSame(const Training& actual, const Training& expected) {
  ASSERT_EQ(actual.moments.size(), expected.moments.size());
  for (size_t i = 0; i < actual.moments.size(); ++i) {
    Parameter& parameter = *actual.moments[i].parameter;
    EXPECT_TRUE(
        at::equal(LoadMaster(Training::Whole(parameter)), LoadMaster(Training::Whole(*expected.moments[i].parameter))))
        << parameter.name;
    EXPECT_TRUE(at::equal(actual.moments[i].first, expected.moments[i].first)) << parameter.name;
    EXPECT_TRUE(at::equal(actual.moments[i].second, expected.moments[i].second)) << parameter.name;
  }
}

class TrainCheckpointTest : public ::testing::Test {
 protected:
  NativeRepository Source(at::ScalarType dtype) { return WriteTinyLlama(directory_.path() / "model", dtype); }

  std::string Write(const NativeRepository& source, const TrainSnapshot& snapshot,
                    const std::optional<PeftConfig>& peft = std::nullopt) {
    const std::string name = absl::StrCat("checkpoint", ++written_);
    auto publication = *Publication::Begin(*store_, name, "job", 1);
    CheckpointSource from{.model = &source, .peft = peft};
    for (const LoraAdapter& adapter : snapshot.adapters) {
      from.sites.push_back(
          {.hf_module = "model." + adapter.site, .internal = adapter.site, .out_features = adapter.rows});
    }
    const absl::Status written = WriteTrainCheckpoint(from, snapshot, *publication);
    EXPECT_TRUE(written.ok()) << written;
    EXPECT_TRUE(publication->Commit().ok());
    return publication->uri();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<ObjectStore> store_ = *ObjectStore::Open((directory_.path() / "out").string());
  const TrainPosition position_ = {.step = 7,
                                   .total_tokens = 900,
                                   .data_epoch = 2,
                                   .data_row = 3,
                                   .validated_step = 6,
                                   .best_step = 4,
                                   .best_loss = 1.25,
                                   .improved_loss = 1.5,
                                   .validations_since_improvement = 2};
  int written_ = 0;
};

TEST_F(TrainCheckpointTest, RoundTrip_EverySourceAndComputeDtype_IsExact) {
  for (const at::ScalarType stored : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(absl::StrCat(c10::toString(stored), " computed in ", c10::toString(compute)));
      const NativeRepository source = Source(stored);
      Training trained(*LoadTransformer(source, {.dtype = compute}));
      trained.Train();
      const std::string uri = Write(source, TakeSnapshot(*trained.model, trained.moments, position_));

      const auto checkpoint = TrainCheckpoint::Open(uri);
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      EXPECT_EQ((*checkpoint)->position(), position_);
      const auto model = (*checkpoint)->OpenModel(source, std::nullopt);
      ASSERT_TRUE(model.ok()) << model.status();
      Training resumed(*LoadTransformer(*model, {.dtype = compute}));
      ASSERT_TRUE((*checkpoint)->Restore(resumed.moments).ok());
      ExpectSame(resumed, trained);
    }
  }
}

TEST_F(TrainCheckpointTest, RoundTrip_Adapters_IsExactAndLeavesTheBaseOut) {
  const NativeRepository source = Source(at::kBFloat16);
  const TransformerOptions options = {.dtype = at::kBFloat16,
                                      .lora = LoraConfig{.rank = 2, .alpha = 4, .sites = {{"layers.0.attn.q"}}}};
  const PeftConfig peft = {"base", 2, 4};
  Training trained(*LoadTransformer(source, options));
  trained.Train();
  const std::string uri = Write(source, TakeSnapshot(*trained.model, trained.moments, position_), peft);
  EXPECT_TRUE(fs::exists(fs::path(uri) / "weights/adapter_model.safetensors"));
  EXPECT_FALSE(fs::exists(fs::path(uri) / "weights/model.safetensors"));

  const auto checkpoint = *TrainCheckpoint::Open(uri);
  Training resumed(*LoadTransformer(*checkpoint->OpenModel(source, peft), options));
  ASSERT_TRUE(checkpoint->Restore(resumed.moments).ok());
  ExpectSame(resumed, trained);
  EXPECT_THAT(std::string(checkpoint->OpenModel(source, std::nullopt).status().message()),
              HasSubstr("holds adapters, but the job has no lora"));
  EXPECT_THAT(std::string(checkpoint->OpenModel(source, PeftConfig{"base", 4, 4}).status().message()),
              HasSubstr("has adapters of rank 2 and alpha 4, the job asks for rank 4 and alpha 4"));
  EXPECT_THAT(
      std::string(checkpoint->OpenModel(source, PeftConfig{.rank = 2, .alpha = 4, .modules_to_save = {"lm_head"}})
                      .status()
                      .message()),
      HasSubstr("modules_to_save: [], the job asks for rslora: false, dora: false, modules_to_save: [lm_head]"));
}

TEST_F(TrainCheckpointTest, Snapshot_IsNotTouchedByFurtherTraining) {
  const NativeRepository source = Source(at::kFloat);
  Training trained(*LoadTransformer(source, {}));
  trained.Train();
  const TrainSnapshot snapshot = TakeSnapshot(*trained.model, trained.moments, position_);
  const at::Tensor before = LoadMaster(Training::Whole(*trained.moments[0].parameter));
  trained.Train();
  EXPECT_TRUE(at::equal(LoadMaster(Training::Whole(*snapshot.moments[0].parameter)), before));
  EXPECT_FALSE(at::equal(LoadMaster(Training::Whole(*trained.moments[0].parameter)), before));
}

TEST_F(TrainCheckpointTest, Open_DamagedOrUncommitted_SaysWhat) {
  const NativeRepository source = Source(at::kFloat);
  Training trained(*LoadTransformer(source, {}));
  const TrainSnapshot snapshot = TakeSnapshot(*trained.model, trained.moments, position_);

  const fs::path flipped = Write(source, snapshot);
  {
    std::fstream file(flipped / "optimizer/state.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x7f');
  }
  const absl::Status damaged = TrainCheckpoint::Open(flipped.string()).status();
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("optimizer/state.safetensors is damaged"));

  const fs::path half = Write(source, snapshot);
  fs::remove(half / "manifest.json");
  EXPECT_EQ(TrainCheckpoint::Open(half.string()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(TrainCheckpoint::Open("/nonexistent").status().code(), absl::StatusCode::kNotFound);

  // An export is committed, too.
  auto publication = *Publication::Begin(*store_, "export", "job", 1);
  ASSERT_TRUE(publication->Write("config.json", "{}").ok());
  ASSERT_TRUE(publication->Commit().ok());
  EXPECT_THAT(std::string(TrainCheckpoint::Open(publication->uri()).status().message()),
              HasSubstr("is not a training checkpoint"));
}

TEST_F(TrainCheckpointTest, Open_NewerFormat_NamesBothVersions) {
  auto publication = *Publication::Begin(*store_, "newer", "job", 1);
  ASSERT_TRUE(publication->Write("trainer.json", R"({"format_version": 3})").ok());
  ASSERT_TRUE(publication->Commit().ok());
  EXPECT_THAT(std::string(TrainCheckpoint::Open(publication->uri()).status().message()),
              HasSubstr("has format version 3, this build reads version 2"));
}

TEST_F(TrainCheckpointTest, Open_OfAnEarlierBuild_EarlyStopGoesOnFromTheBest) {
  auto publication = *Publication::Begin(*store_, "earlier", "job", 1);
  ASSERT_TRUE(publication->Write("optimizer/state.safetensors", SafetensorsBytes({})).ok());
  ASSERT_TRUE(publication
                  ->Write("trainer.json", R"({"format_version": 2, "step": 7, "updates": 7, "total_tokens": 9,
      "seconds": 1, "data": {"epoch": 0, "block": 0, "row": 1},
      "numerics": {"skipped_in_a_row": 0, "recent_losses": [], "recent_norms": []},
      "validation": {"step": 6, "best_step": 4, "best_loss": 1.25, "validations_since_best": 1}})")
                  .ok());
  ASSERT_TRUE(publication->Commit().ok());
  const auto checkpoint = TrainCheckpoint::Open(publication->uri());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->position().best_step, 4);
  EXPECT_EQ((*checkpoint)->position().improved_loss, 1.25);
}

TEST_F(TrainCheckpointTest, OpenModel_OfAnotherModel_IsRefused) {
  const NativeRepository source = Source(at::kFloat);
  Training trained(*LoadTransformer(source, {}));
  const auto checkpoint =
      *TrainCheckpoint::Open(Write(source, TakeSnapshot(*trained.model, trained.moments, position_)));
  std::string other = TinyLlamaConfig();
  other.replace(other.find("\"num_attention_heads\": 2"), 24, "\"num_attention_heads\": 4, \"head_dim\": 4");
  WriteFile(directory_.path() / "model/config.json", other);
  const NativeRepository changed = *OpenNativeRepository((directory_.path() / "model").string());
  const absl::Status refused = checkpoint->OpenModel(changed, std::nullopt).status();
  EXPECT_EQ(CauseOf(refused), FailureCause::kUserInput);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("is of another model than the job's"));
}

}  // namespace
}  // namespace temper
