// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/freeze_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/checkpoint/tiny_checkpoint.h"
#include "worker/families/families.h"
#include "worker/model/transformer.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

class FreezeWeightsTest : public ::testing::Test {
 protected:
  absl::Status Freeze(const std::vector<std::string>& patterns) {
    return FreezeWeights(patterns, *family_, model_.config(), model_.views());
  }
  const Parameter& Find(const std::string& name) {
    for (const Parameter* parameter : model_.parameters()) {
      if (parameter->name == name) return *parameter;
    }
    throw std::out_of_range(name);
  }

  const nlohmann::json json_ = nlohmann::json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 40, "max_position_embeddings": 64, "tie_word_embeddings": true})");
  const FamilySpec* family_ = *FindFamily(json_);
  Transformer model_{*ConfigureModel(*family_, json_), {.dtype = at::kBFloat16}};
};

TEST_F(FreezeWeightsTest, WholeParameter_IsNoLongerTrained) {
  ASSERT_TRUE(Freeze({"model.layers.0.mlp.*"}).ok());
  for (const char* name : {"layers.0.mlp.gate_up.weight", "layers.0.mlp.down.weight"}) {
    EXPECT_FALSE(Find(name).trainable) << name;
    EXPECT_FALSE(Find(name).weight.requires_grad()) << name;
    EXPECT_TRUE(Find(name).low.defined()) << name;  // it is exported as it was
    EXPECT_TRUE(Find(name).trainable_rows().empty()) << name;
  }
  EXPECT_TRUE(Find("layers.1.mlp.down.weight").trainable);
}

TEST_F(FreezeWeightsTest, PartOfAParameter_IsRowsOfIt) {
  ASSERT_TRUE(Freeze({"*.1.self_attn.k_proj.weight"}).ok());
  const Parameter& qkv = Find("layers.1.attn.qkv.weight");
  EXPECT_TRUE(qkv.trainable);
  ASSERT_EQ(qkv.frozen_rows.size(), 1);
  EXPECT_EQ(qkv.frozen_rows[0].row, 16);
  EXPECT_EQ(qkv.frozen_rows[0].rows, 8);
  const std::vector<RowRange> rows = qkv.trainable_rows();
  ASSERT_EQ(rows.size(), 2);
  EXPECT_EQ(rows[0].rows, 16);
  EXPECT_EQ(rows[1].row, 24);
}

TEST_F(FreezeWeightsTest, SeveralPatterns_ForOneParameter_AddUp) {
  ASSERT_TRUE(Freeze({"*.q_proj.*", "*.k_proj.*", "*.[kv]_proj.*"}).ok());
  EXPECT_FALSE(Find("layers.0.attn.qkv.weight").trainable);
}

TEST_F(FreezeWeightsTest, PatternThatMatchesNothing_IsAnError) {
  EXPECT_THAT(std::string(Freeze({"model.norm.weight", "layers.0.*"}).message()),
              HasSubstr("'layers.0.*' matches no weight of the model; its weights have names like model."));
}

TEST_F(FreezeWeightsTest, Everything_IsAnError) {
  EXPECT_THAT(std::string(Freeze({"*"}).message()), HasSubstr("nothing is left to train"));
}

// A model under adapters: all of it is frozen.
class TrainModulesTest : public FreezeWeightsTest {
 protected:
  TrainModulesTest() {
    for (Parameter* parameter : model_.parameters()) {
      parameter->trainable = false;
      parameter->low = at::Tensor();
      parameter->weight.requires_grad_(false);
    }
  }

  absl::Status Train(const std::vector<std::string>& modules) {
    return TrainModules(modules, *family_, model_.config(), model_.views());
  }
};

TEST_F(TrainModulesTest, Module_IsTrainedAndNothingElse) {
  ASSERT_TRUE(Train({"model.layers.1.self_attn.v_proj", "model.norm"}).ok());
  for (const Parameter* parameter : model_.parameters()) {
    const bool trained = parameter->name == "layers.1.attn.qkv.weight" || parameter->name == "final_norm.weight";
    EXPECT_EQ(parameter->trainable, trained) << parameter->name;
    EXPECT_EQ(parameter->low.defined(), trained) << parameter->name;
    EXPECT_EQ(parameter->weight.requires_grad(), trained) << parameter->name;
  }
  const std::vector<RowRange> rows = Find("layers.1.attn.qkv.weight").trainable_rows();
  ASSERT_EQ(rows.size(), 1);
  EXPECT_EQ(rows[0].row, 24);
  EXPECT_EQ(rows[0].rows, 8);
}

TEST_F(TrainModulesTest, TiedHead_IsTheEmbedding) {
  ASSERT_TRUE(Train({"model.embed_tokens", "lm_head"}).ok());
  EXPECT_TRUE(Find("embed.weight").trainable);
  EXPECT_TRUE(Find("embed.weight").frozen_rows.empty());
}

TEST_F(FreezeWeightsTest, NoModulesToTrain_ChangeNothing) {
  ASSERT_TRUE(TrainModules({}, *family_, model_.config(), model_.views()).ok());
  for (const Parameter* parameter : model_.parameters()) EXPECT_TRUE(parameter->trainable) << parameter->name;
}

}  // namespace
}  // namespace temper
