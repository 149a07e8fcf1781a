// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/train_checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "common/failure.h"
#include "tests/worker/checkpoint/tiny_llama.h"
#include "tests/worker/parallel/gang.h"
#include "worker/checkpoint/joint_publication.h"

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

// What a rank has of such a training.
struct Shards {
  LoadedModel loaded;
  std::vector<Moments> moments;

  explicit Shards(LoadedModel model) : loaded(std::move(model)) {
    for (Parameter* part : loaded.shards->parameters()) {
      if (part->trainable)
        moments.push_back({part, at::zeros({part->weight.numel()}), at::zeros({part->weight.numel()})});
    }
  }

  // Calls `visit` with each slice's moments, and with the elements that are there of what the whole training has.
  template <typename Visit>
  void ForEach(const Training& whole, Visit visit) {
    std::map<std::string, const Moments*> by_name;
    for (const Moments& state : whole.moments) by_name[state.parameter->name] = &state;
    std::map<const Parameter*, int64_t> begins;
    for (const ShardSlice* slice : loaded.shards->slices()) begins[&slice->part] = slice->begin;
    for (Moments& state : moments) {
      const Moments& all = *by_name.at(state.parameter->name);
      const auto here = [&](const at::Tensor& values) {
        return values.flatten().narrow(0, begins[state.parameter], state.first.numel());
      };
      visit(state, here(LoadMaster(Training::Whole(*all.parameter))), here(all.first), here(all.second));
    }
  }

  void TakeFrom(const Training& whole) {
    ForEach(whole, [](Moments& state, const at::Tensor& master, const at::Tensor& first, const at::Tensor& second) {
      StoreMaster(Training::Whole(*state.parameter), master);
      state.first.copy_(first);
      state.second.copy_(second);
    });
  }

  void ExpectSameAs(const Training& whole) {
    ForEach(whole, [](Moments& state, const at::Tensor& master, const at::Tensor& first, const at::Tensor& second) {
      EXPECT_TRUE(at::equal(LoadMaster(Training::Whole(*state.parameter)), master)) << state.parameter->name;
      EXPECT_TRUE(at::equal(state.first, first)) << state.parameter->name;
      EXPECT_TRUE(at::equal(state.second, second)) << state.parameter->name;
    });
  }
};

class TrainCheckpointTest : public ::testing::Test {
 protected:
  NativeRepository Source(at::ScalarType dtype) { return WriteTinyLlama(directory_.path() / "model", dtype); }

  std::string Write(const NativeRepository& source, const TrainSnapshot& snapshot,
                    const std::optional<PeftConfig>& peft = std::nullopt) {
    return WriteAs(absl::StrCat("checkpoint", ++written_), source, snapshot, peft, /*ranks=*/nullptr);
  }

  // The same from the shards of several ranks.
  std::string WriteTogether(int world, const NativeRepository& source, const TransformerOptions& options,
                            const Training& trained, const std::optional<PeftConfig>& peft) {
    if (world == 1) return Write(source, TakeSnapshot(*trained.model, trained.moments, position_), peft);
    const std::string name = absl::StrCat("checkpoint", ++written_);
    RunGang(world, [&](ProcessGroup& group) {
      Shards shards(*LoadModel(source, options, &group));
      shards.TakeFrom(trained);
      TrainSnapshot snapshot;
      {
        const std::lock_guard lock(generator_);
        snapshot = TakeSnapshot(*shards.loaded.model, shards.moments, position_);
      }
      WriteAs(name, source, snapshot, peft, &group);
    });
    return store_->UriOf(name);
  }

  std::string WriteAs(const std::string& name, const NativeRepository& source, const TrainSnapshot& snapshot,
                      const std::optional<PeftConfig>& peft, ProcessGroup* ranks) {
    const auto publication = *BeginTogether(*store_, name, "job", 1, ranks);
    CheckpointSource from{.model = &source, .peft = peft};
    for (const LoraAdapter& adapter : snapshot.adapters) {
      from.sites.push_back(
          {.hf_module = "model." + adapter.site, .internal = adapter.site, .out_features = adapter.rows});
    }
    const absl::Status written = WriteTrainCheckpoint(from, snapshot, *publication, ranks);
    EXPECT_TRUE(written.ok()) << written;
    EXPECT_TRUE(CommitTogether(*publication, ranks).ok());
    return publication->uri();
  }

  void ExpectRestored(int world, const std::string& uri, const NativeRepository& source,
                      const TransformerOptions& options, const std::optional<PeftConfig>& peft,
                      const Training& trained) {
    RunGang(world, [&](ProcessGroup& group) {
      const auto checkpoint = *TrainCheckpoint::Open(uri, &group);
      EXPECT_EQ(checkpoint->position(), position_);
      Shards shards(*LoadModel(*checkpoint->OpenModel(source, peft), options, &group));
      {
        const std::lock_guard lock(generator_);
        const absl::Status restored = checkpoint->Restore(shards.moments, shards.loaded.shards->slices(), group.rank());
        EXPECT_TRUE(restored.ok()) << restored;
      }
      shards.ExpectSameAs(trained);
    });
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
  std::mutex generator_;  // torch's own, which the ranks of a test have in common
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

TEST_F(TrainCheckpointTest, RoundTrip_WhatNobodyHasHeard_IsKept) {
  const NativeRepository source = Source(at::kFloat);
  Training trained(*LoadTransformer(source, {}));
  TrainSnapshot snapshot = TakeSnapshot(*trained.model, trained.moments, position_);
  snapshot.unheard = {R"({"step":{"loss":0.1,"step":"6"}})", R"({"step":{"loss":"NaN","step":"7"}})"};
  EXPECT_EQ((*TrainCheckpoint::Open(Write(source, snapshot)))->unheard(), snapshot.unheard);
}

TEST_F(TrainCheckpointTest, RoundTrip_Adapters_IsExactAndLeavesTheBaseOut) {
  const NativeRepository source = Source(at::kBFloat16);
  const TransformerOptions options = {.dtype = at::kBFloat16,
                                      .lora = LoraConfig{.rank = 2, .alpha = 4, .sites = {{"layers.0.attn.q"}}}};
  const PeftConfig peft = {.base_model = "base", .rank = 2, .alpha = 4};
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
  EXPECT_THAT(
      std::string(
          checkpoint->OpenModel(source, PeftConfig{.base_model = "base", .rank = 4, .alpha = 4}).status().message()),
      HasSubstr("has adapters of rank 2 and alpha 4, the job asks for rank 4 and alpha 4"));
  EXPECT_THAT(
      std::string(checkpoint->OpenModel(source, PeftConfig{.rank = 2, .alpha = 4, .modules_to_save = {"lm_head"}})
                      .status()
                      .message()),
      HasSubstr("modules_to_save: [], the job asks for rslora: false, dora: false, modules_to_save: [lm_head]"));
}

std::string ReadBytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct WorldsCase {
  std::string name;
  at::ScalarType stored, compute;
  std::optional<PeftConfig> peft = std::nullopt;
};

class TrainCheckpointWorldsTest : public TrainCheckpointTest, public ::testing::WithParamInterface<WorldsCase> {
 protected:
  static TransformerOptions Options(at::ScalarType compute, const std::optional<PeftConfig>& peft) {
    TransformerOptions options = {.dtype = compute};
    if (peft) options.lora = LoraConfig{.rank = 2, .alpha = 4, .sites = {{"layers.0.attn.q"}, {"layers.0.mlp.down"}}};
    return options;
  }

  // What lies in a directory, committed anew.
  std::string Republish(const fs::path& directory) {
    auto publication = *Publication::Begin(*store_, absl::StrCat("checkpoint", ++written_), "job", 1);
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(directory)) {
      const std::string path = entry.path().lexically_relative(directory);
      if (!entry.is_regular_file() || path == kManifestName) continue;
      EXPECT_TRUE(publication->Write(path, ReadBytes(entry.path())).ok());
    }
    EXPECT_TRUE(publication->Commit().ok());
    return publication->uri();
  }
};

TEST_P(TrainCheckpointWorldsTest, WhatAnyNumberOfRanksWrote_AnyNumberGoesOnFrom) {
  const auto& [_, stored, compute, peft] = GetParam();
  const NativeRepository source = Source(stored);
  const TransformerOptions options = Options(compute, peft);
  Training trained(*LoadTransformer(source, options));
  trained.Train();
  std::string weights;
  for (const int writers : {1, 3, 4}) {
    SCOPED_TRACE(absl::StrCat(writers, " writers"));
    const std::string uri = WriteTogether(writers, source, options, trained, peft);
    const std::string written =
        ReadBytes(fs::path(uri) / "weights" / (peft ? "adapter_model.safetensors" : "model.safetensors"));
    EXPECT_FALSE(written.empty());
    if (!weights.empty()) {
      EXPECT_EQ(written, weights);
    }
    weights = written;
    Training resumed(*LoadTransformer(*(*TrainCheckpoint::Open(uri))->OpenModel(source, peft), options));
    ASSERT_TRUE((*TrainCheckpoint::Open(uri))->Restore(resumed.moments).ok());
    ExpectSame(resumed, trained);
    for (const int readers : {2, 3}) ExpectRestored(readers, uri, source, options, peft, trained);
  }
}

INSTANTIATE_TEST_SUITE_P(, TrainCheckpointWorldsTest,
                         ::testing::Values(WorldsCase{"Fp32", at::kFloat, at::kFloat},
                                           WorldsCase{"Bf16", at::kBFloat16, at::kBFloat16},
                                           WorldsCase{"Fp16Trained", at::kHalf, at::kFloat},
                                           WorldsCase{"Adapters", at::kBFloat16, at::kBFloat16,
                                                      PeftConfig{.base_model = "base", .rank = 2, .alpha = 4}}),
                         [](const auto& info) { return info.param.name; });

TEST_F(TrainCheckpointTest, RanksThatWroteNothing_GoOnWithTheirOwnNumbers) {
  const NativeRepository source = Source(at::kFloat);
  Training trained(*LoadTransformer(source, {}));
  const auto checkpoint =
      *TrainCheckpoint::Open(Write(source, TakeSnapshot(*trained.model, trained.moments, position_)));
  const at::Generator& generator = at::detail::getDefaultCPUGenerator();
  at::manual_seed(17);
  const at::Tensor seeded = generator.get_state();
  ASSERT_TRUE(checkpoint->Restore(trained.moments, {}, /*rank=*/1).ok());
  EXPECT_TRUE(at::equal(generator.get_state(), seeded));
  ASSERT_TRUE(checkpoint->Restore(trained.moments).ok());
  EXPECT_FALSE(at::equal(generator.get_state(), seeded));
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
    std::fstream file(flipped / "optimizer/state-00001-of-00001.safetensors",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x7f');
  }
  const absl::Status damaged = TrainCheckpoint::Open(flipped.string()).status();
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("optimizer/state-00001-of-00001.safetensors is damaged"));

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
  ASSERT_TRUE(publication->Write("trainer.json", R"({"format_version": 4})").ok());
  ASSERT_TRUE(publication->Commit().ok());
  EXPECT_THAT(std::string(TrainCheckpoint::Open(publication->uri()).status().message()),
              HasSubstr("has format version 4, this build reads versions 2 to 3"));
}

// What builds before shards wrote: whole parameters in one file, without metadata.
void MakeVersion2(const fs::path& checkpoint, const Training& trained) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const Moments& state : trained.moments) shapes[state.parameter->name] = state.parameter->weight.sizes().vec();
  const fs::path state = checkpoint / "optimizer/state-00001-of-00001.safetensors";
  const auto file = *SafetensorsFile::Open(state.string());
  std::vector<SafetensorsEntry> entries;
  std::string data;
  for (const SafetensorsEntry& entry : file->header().entries) {
    const auto shape = shapes.find(entry.name.substr(entry.name.find('/') + 1));
    entries.push_back({entry.name, entry.dtype, shape == shapes.end() ? entry.shape : shape->second});
    data += BytesOf(*file->Tensor(entry));
  }
  WriteFile(checkpoint / "optimizer/state.safetensors", BuildSafetensorsHeader(entries, {}) + data);
  fs::remove(state);
  nlohmann::json trainer = nlohmann::json::parse(ReadBytes(checkpoint / "trainer.json"));
  trainer["format_version"] = 2;
  WriteFile(checkpoint / "trainer.json", trainer.dump());
}

TEST_P(TrainCheckpointWorldsTest, WhatAnEarlierBuildWrote_IsGoneOnFrom) {
  const auto& [_, stored, compute, peft] = GetParam();
  const NativeRepository source = Source(stored);
  const TransformerOptions options = Options(compute, peft);
  Training trained(*LoadTransformer(source, options));
  trained.Train();
  const fs::path written = Write(source, TakeSnapshot(*trained.model, trained.moments, position_), peft);
  MakeVersion2(written, trained);
  const std::string uri = Republish(written);

  Training resumed(*LoadTransformer(*(*TrainCheckpoint::Open(uri))->OpenModel(source, peft), options));
  ASSERT_TRUE((*TrainCheckpoint::Open(uri))->Restore(resumed.moments).ok());
  ExpectSame(resumed, trained);
  ExpectRestored(3, uri, source, options, peft, trained);
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
