// SPDX-License-Identifier: Apache-2.0
#include "worker/families/rope_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace temper {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;
using Kind = RopeConfig::Kind;

struct Read {
  RopeConfig rope;
  absl::Status status;
};

Read ReadFrom(const char* text, int64_t max_positions = 4096) {
  const Json config = Json::parse(text);
  ConfigReader reader(config);
  Read read;
  read.rope = ReadRope(reader, {.max_positions = max_positions});
  read.status = reader.Finish();
  return read;
}

RopeConfig Good(const char* text) {
  const Read read = ReadFrom(text);
  EXPECT_TRUE(read.status.ok()) << text << ": " << read.status;
  return read.rope;
}

TEST(ReadRope, Default_AnySpelling_GivesTheBase) {
  EXPECT_EQ(Good(R"({})").theta, 10000.0);
  EXPECT_EQ(Good(R"({"rope_theta": 500000, "rope_scaling": null})").theta, 500000.0);
  EXPECT_EQ(Good(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})").theta, 500000.0);
  const RopeConfig both = Good(R"({"rope_theta": 5e5, "rope_scaling": null,
                                   "rope_parameters": {"rope_type": "default", "rope_theta": 500000}})");
  EXPECT_EQ(both.theta, 500000.0);
  EXPECT_EQ(both.kind, Kind::kDefault);
}

TEST(ReadRope, Llama3_BothVersions_ReadTheSame) {
  for (const char* text : {R"({"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
                               "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 8192}})",
                           R"({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
                               "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 8192}})"}) {
    const RopeConfig rope = Good(text);
    EXPECT_EQ(rope.kind, Kind::kLlama3);
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.low_freq_factor, 1.0);
    EXPECT_EQ(rope.high_freq_factor, 4.0);
    EXPECT_EQ(rope.original_max_positions, 8192);
  }
}

TEST(ReadRope, LinearAndDynamic_OldTypeKey_IsRead) {
  EXPECT_EQ(Good(R"({"rope_scaling": {"type": "linear", "factor": 4}})").kind, Kind::kLinear);
  EXPECT_EQ(Good(R"({"rope_scaling": {"type": "linear", "factor": 4}})").factor, 4.0);
  const RopeConfig dynamic = Good(R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})");
  EXPECT_EQ(dynamic.kind, Kind::kDynamic);
  EXPECT_EQ(dynamic.original_max_positions, 4096);
}

TEST(ReadRope, Yarn_AttentionFactor_IsDerivedAsInTheReference) {
  const RopeConfig rope = Good(R"({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0,
                                   "original_max_position_embeddings": 1024}})");
  EXPECT_EQ(rope.kind, Kind::kYarn);
  EXPECT_EQ(rope.original_max_positions, 1024);
  EXPECT_DOUBLE_EQ(rope.attention_factor, 0.1 * std::log(4.0) + 1.0);
  EXPECT_EQ(rope.beta_fast, 32.0);
  EXPECT_TRUE(rope.truncate);

  const RopeConfig scaled = Good(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 0.707,
                                     "mscale_all_dim": 1.0, "beta_fast": 16, "truncate": false}})");
  EXPECT_DOUBLE_EQ(scaled.attention_factor, (0.1 * 0.707 * std::log(4.0) + 1.0) / (0.1 * std::log(4.0) + 1.0));
  EXPECT_EQ(scaled.original_max_positions, 4096);
  EXPECT_FALSE(scaled.truncate);
  EXPECT_EQ(Good(R"({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": 1.25}})").attention_factor,
            1.25);
}

TEST(ReadRope, OriginalPositionsBesideTheRope_ComeFirst) {
  EXPECT_EQ(Good(R"({"original_max_position_embeddings": 512, "rope_scaling": {"rope_type": "yarn", "factor": 8.0}})")
                .original_max_positions,
            512);
}

TEST(ReadRope, BadConfigs_AreRefusedWithTheKey) {
  struct Case {
    const char* config;
    const char* message;
  };
  const Case cases[] = {
      {R"({"rope_theta": 10000, "rope_parameters": {"rope_theta": 500000}})", "`rope_theta` is 10000"},
      {R"({"rope_scaling": {"rope_type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "linear",
           "factor": 4}})",
       "`factor` is 2"},
      {R"({"rope_scaling": {"rope_type": "axial", "factor": 2}})", "\"axial\"; supported are default, linear"},
      {R"({"rope_scaling": {"rope_type": "linear"}})", "`rope_parameters.factor` is missing"},
      {R"({"rope_scaling": {"rope_type": "linear", "factor": 0}})", "`rope_parameters.factor` must be over 0"},
      {R"({"rope_scaling": {"rope_type": "linear", "factor": 2, "long_mscale": 1}})", "`rope_parameters.long_mscale`"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}})",
       "must be over `low_freq_factor`"},
      {R"({"rope_scaling": "linear"})", "`rope_scaling` must be an object"},
      {R"({"rope_theta": "10000"})", "`rope_parameters.rope_theta` must be a number"},
      {R"({"rope_theta": -1})", "`rope_parameters.rope_theta` must be over 0"},
      {R"({"partial_rotary_factor": 0.5})", "`partial_rotary_factor` is 0.5"},
      {R"({"rope_parameters": {"partial_rotary_factor": 0.5}})", "`rope_parameters.partial_rotary_factor` is 0.5"},
      {R"({"rope_interleaved": true})", "`rope_interleaved` is true"},
  };
  for (const Case& bad : cases) {
    const absl::Status status = ReadFrom(bad.config).status;
    EXPECT_FALSE(status.ok()) << bad.config;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message)) << bad.config;
  }
}

TEST(ReadRope, LongRope_FactorAndAttentionFollowFromThePositions) {
  const Json config = Json::parse(R"({"partial_rotary_factor": 0.75, "rope_scaling": {"type": "longrope",
                                      "short_factor": [1.0, 1.5], "long_factor": [2, 3]}})");
  ConfigReader reader(config);
  const RopeConfig rope = ReadRope(reader, {.max_positions = 131072, .original_max_positions = 4096, .partial = true});
  EXPECT_TRUE(reader.Finish().ok());
  EXPECT_EQ(rope.kind, Kind::kLongRope);
  EXPECT_EQ(rope.rotated_share, 0.75);
  EXPECT_EQ(rope.factor, 32.0);
  EXPECT_DOUBLE_EQ(rope.attention_factor, std::sqrt(1 + std::log(32.0) / std::log(4096.0)));
  EXPECT_EQ(rope.long_factors, (std::vector<double>{2, 3}));
}

TEST(ReadRopeOfLayerTypes, BothSpellings_ReadTheSame) {
  for (const char* text : {R"({"rope_theta": 1e6, "rope_local_base_freq": 5e3,
                               "rope_scaling": {"rope_type": "linear", "factor": 8.0}})",
                           R"({"rope_parameters": {
                               "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                               "sliding_attention": {"rope_type": "default", "rope_theta": 5e3}}})"}) {
    Json config = Json::parse(text);
    for (const bool rewritten : {false, true}) {
      if (rewritten) WriteBothRopeSpellings(config);
      ConfigReader reader(config);
      const std::vector<RopeConfig> ropes = ReadRopeOfLayerTypes(reader, {.theta = 1.0}, {.theta = 2.0});
      EXPECT_TRUE(reader.Finish().ok()) << text;
      ASSERT_EQ(ropes.size(), 2u);
      EXPECT_EQ(ropes[0].kind, Kind::kLinear);
      EXPECT_EQ(ropes[0].factor, 8.0);
      EXPECT_EQ(ropes[0].theta, 1e6);
      EXPECT_EQ(ropes[1].kind, Kind::kDefault);
      EXPECT_EQ(ropes[1].theta, 5e3);
    }
    EXPECT_EQ(config["rope_theta"], 1e6);
    EXPECT_EQ(config["rope_local_base_freq"], 5e3);
    EXPECT_EQ(config["rope_parameters"]["sliding_attention"]["rope_theta"], 5e3);
  }
}

// Equality of ordered_json minds the order.
nlohmann::json Unordered(const Json& json) { return json; }

TEST(WriteBothRopeSpellings, EitherSpelling_GainsTheOther) {
  Json old_spelling = Json::parse(R"({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}})");
  WriteBothRopeSpellings(old_spelling);
  EXPECT_EQ(Unordered(old_spelling["rope_parameters"]),
            nlohmann::json::parse(R"({"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})"));
  EXPECT_EQ(Unordered(old_spelling["rope_scaling"]), nlohmann::json::parse(R"({"type": "linear", "factor": 2.0})"));

  Json new_spelling = Json::parse(R"({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}})");
  WriteBothRopeSpellings(new_spelling);
  EXPECT_EQ(new_spelling["rope_theta"], 5e5);
  EXPECT_EQ(Unordered(new_spelling["rope_scaling"]),
            nlohmann::json::parse(R"({"rope_type": "linear", "factor": 2.0})"));

  Json plain = Json::parse(R"({"rope_theta": 100000, "rope_scaling": null})");
  WriteBothRopeSpellings(plain);
  EXPECT_EQ(Unordered(plain["rope_parameters"]),
            nlohmann::json::parse(R"({"rope_type": "default", "rope_theta": 100000})"));
  EXPECT_TRUE(plain["rope_scaling"].is_null());

  Json none = Json::object();
  WriteBothRopeSpellings(none);
  EXPECT_TRUE(none.empty());
}

TEST(WriteBothRopeSpellings, KeysOutsideRopeScaling_AreWhereEachReaderLooks) {
  const char* const old_spelling = R"({"rope_theta": 1e4, "partial_rotary_factor": 0.75,
                                       "original_max_position_embeddings": 4096, "rope_scaling":
                                       {"type": "longrope", "short_factor": [1, 2], "long_factor": [3, 4]}})";
  const char* const new_spelling = R"({"original_max_position_embeddings": 4096, "rope_parameters":
                                       {"rope_theta": 1e4, "partial_rotary_factor": 0.75,
                                       "original_max_position_embeddings": 4096, "rope_type": "longrope",
                                       "short_factor": [1, 2], "long_factor": [3, 4]}})";
  nlohmann::json both = nlohmann::json::parse(old_spelling);
  both.update(nlohmann::json::parse(new_spelling));
  for (const char* spelling : {old_spelling, new_spelling}) {
    Json config = Json::parse(spelling);
    WriteBothRopeSpellings(config);
    EXPECT_EQ(Unordered(config), both);
  }
}

}  // namespace
}  // namespace temper
