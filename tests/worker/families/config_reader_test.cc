// SPDX-License-Identifier: Apache-2.0
#include "worker/families/config_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(ConfigReader, Getters_PresentAbsentAndNull_GiveValueOrDefault) {
  const Json config = {{"int", 3}, {"double", 0.5}, {"whole", 2}, {"bool", true}, {"text", "x"}, {"null", nullptr}};
  ConfigReader reader(config);
  EXPECT_EQ(reader.Int("int"), 3);
  EXPECT_EQ(reader.Double("double"), 0.5);
  EXPECT_EQ(reader.Double("whole"), 2.0);
  EXPECT_TRUE(reader.Bool("bool"));
  EXPECT_EQ(reader.String("text"), "x");
  EXPECT_EQ(reader.Int("null", 7), 7);
  EXPECT_EQ(reader.Size("absent", 8), 8);
  EXPECT_FALSE(reader.Has("null"));
  EXPECT_TRUE(reader.Finish().ok());
}

TEST(ConfigReader, Finish_WrongTypesAndMissing_NamesEveryKey) {
  const Json config = {{"size", 0}, {"int", 1.5}, {"double", "1e-5"}, {"bool", 1}, {"text", Json::array({"x"})}};
  ConfigReader reader(config);
  reader.Size("size");
  reader.Int("int");
  reader.Double("double");
  reader.Bool("bool", false);
  reader.String("text", "");
  reader.Size("missing");
  const absl::Status status = reader.Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* part : {"`size` must be at least 1, but is 0", "`int` must be an integer, but is 1.5",
                           "`double` must be a number, but is \"1e-5\"", "`bool` must be true or false, but is 1",
                           "`text` must be a string, but is [\"x\"]", "`missing` is missing"}) {
    EXPECT_THAT(Message(status), HasSubstr(part));
  }
}

// Sound configs that are not for temper can be trained by another backend, others can't.
TEST(ConfigReader, Expect_AnotherValue_IsUnimplementedUnlessSomethingIsUnsound) {
  const Json config = {{"hidden_act", "crelu"}, {"int", 1.5}};
  ConfigReader sound(config);
  sound.Expect("hidden_act", "silu", "it is the family's own");
  (void)sound.Raw("int");
  EXPECT_EQ(sound.Finish().code(), absl::StatusCode::kUnimplemented);
  ConfigReader unsound(config);
  unsound.Expect("hidden_act", "silu", "it is the family's own");
  unsound.Int("int");
  EXPECT_EQ(unsound.Finish().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ConfigReader, Finish_UnreadKey_IsNamedWithItsValue) {
  const Json config = {{"use_cache", true}, {"sliding_window", 4096}};
  const absl::Status status = ConfigReader(config).Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status), HasSubstr("`sliding_window` (4096)"));
  EXPECT_THAT(Message(status), ::testing::Not(HasSubstr("use_cache")));
}

TEST(ConfigReader, Finish_EveryNeutralKey_IsFound) {
  // Neutral keys are searched for in a sorted list: the first, the last and one with odd letters must be found.
  const Json config = {{"_attn_implementation", "eager"},
                       {"transformers.js_config", 1},
                       {"use_cache", true},
                       {"architectures", 1},
                       {"unk_token_id", 0},
                       {"dtype", "float32"}};
  EXPECT_TRUE(ConfigReader(config).Finish().ok());
}

TEST(ConfigReader, Finish_NestedReader_HasNoNeutralKeysAndPrefixesThePath) {
  const Json config = {{"use_cache", true}};
  EXPECT_THAT(Message(ConfigReader(config, "rope_parameters").Finish()), HasSubstr("`rope_parameters.use_cache`"));
}

TEST(ConfigReader, Finish_EncoderDecoder_IsRefused) {
  const Json good = {{"is_encoder_decoder", false}};
  EXPECT_TRUE(ConfigReader(good).Finish().ok());
  const Json bad = {{"is_encoder_decoder", true}};
  EXPECT_THAT(Message(ConfigReader(bad).Finish()), HasSubstr("`is_encoder_decoder` is true; only false"));
}

TEST(ConfigReader, Expect_NumbersOfAnotherType_AreEqual) {
  const Json config = {{"attention_dropout", 0}, {"pretraining_tp", 2}};
  ConfigReader reader(config);
  reader.Expect("attention_dropout", 0.0, "why");
  reader.Expect("pretraining_tp", 1, "because");
  EXPECT_THAT(Message(reader.Finish()), HasSubstr("`pretraining_tp` is 2; only 1 is supported: because"));
}

}  // namespace
}  // namespace temper
