// SPDX-License-Identifier: Apache-2.0
#include "worker/train/native_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/family_verdicts.h"
#include "worker/families/families.h"

namespace temper {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

const FamilySpec& Llama() {
  const auto family = FindFamily({{"architectures", {"LlamaForCausalLM"}}});
  return **family;
}

ModelConfig Model() {
  ModelConfig config;
  config.num_layers = 2;
  config.attention = {.num_heads = 4, .num_kv_heads = 2, .head_dim = 16, .scale = 0.25};
  return config;
}

// As no llama is.
ModelConfig UnknownModel() {
  ModelConfig config = Model();
  config.attention.sinks = true;
  return config;
}

class NativeCheckTest : public testing::Test {
 protected:
  absl::StatusOr<NativeCheck> Check(const ModelConfig& config, at::ScalarType dtype = at::kFloat) {
    return CheckNativeModel("/m", Llama(), config, dtype, [this](const std::string& uri, at::ScalarType asked) {
      EXPECT_EQ(uri, "/m");
      asked_.push_back(asked);
      return answer_;
    });
  }

  std::vector<at::ScalarType> asked_;
  absl::StatusOr<nlohmann::json> answer_ = nlohmann::json({{"passed", true}});
};

TEST_F(NativeCheckTest, ShippedVerdict_IsBelieved) {
  const auto check = Check(Model());
  ASSERT_TRUE(check.ok());
  EXPECT_TRUE(asked_.empty());
  EXPECT_THAT(check->reason, HasSubstr("LlamaForCausalLM computes what transformers' does"));
  EXPECT_EQ(check->warning, "");
}

TEST_F(NativeCheckTest, UnknownMechanisms_AreComparedInFp32AndInTheJobsDtype) {
  const auto check = Check(UnknownModel(), at::kBFloat16);
  ASSERT_TRUE(check.ok());
  EXPECT_THAT(asked_, ElementsAre(at::kFloat, at::kBFloat16));
  EXPECT_THAT(check->reason, HasSubstr("attention_sinks"));
  EXPECT_EQ(check->warning, "");
}

TEST_F(NativeCheckTest, ThatDepart_AreRefused) {
  answer_ = nlohmann::json({{"passed", false}, {"reasons", {"largest KL is 0.5"}}});
  const auto check = Check(UnknownModel(), at::kBFloat16);
  EXPECT_EQ(check.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(check.status().message(), HasSubstr("largest KL is 0.5"));
  EXPECT_THAT(asked_, ElementsAre(at::kFloat));
}

TEST_F(NativeCheckTest, ThatCannotBeCompared_AreWarnedOf) {
  answer_ = absl::UnavailableError("no Python here");
  const auto check = Check(UnknownModel());
  ASSERT_TRUE(check.ok());
  EXPECT_THAT(check->warning, AllOf(HasSubstr("no Python here"), HasSubstr("temper verify")));
  const auto without = CheckNativeModel("/m", Llama(), UnknownModel(), at::kFloat, nullptr);
  ASSERT_TRUE(without.ok());
  EXPECT_THAT(without->warning, HasSubstr("no verifier"));
}

}  // namespace
}  // namespace temper
