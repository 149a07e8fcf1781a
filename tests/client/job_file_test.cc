// SPDX-License-Identifier: Apache-2.0
#include "client/job_file.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace temper {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kGood[] = R"(model: {uri: /models/tiny}
data:
  uri: /data/train.jsonl
  overlong: drop
training:
  epochs: 1.5
  tokens_per_step: 4096
  learning_rate: 2e-4
  schedule: cosine
  precision: FP32
resources: {device: cpu}
lora: {rank: 8, targets: [q_proj, v_proj]}
output: {uri: /out}
priority: -3
)";

absl::StatusOr<JobFile> Parse(std::string_view text, const std::vector<std::string>& overrides = {}) {
  return ParseJobFile(text, "job.yaml", "/jobs", overrides);
}

std::string ErrorOf(std::string_view text, const std::vector<std::string>& overrides = {}) {
  const auto file = Parse(text, overrides);
  EXPECT_FALSE(file.ok()) << "accepted: " << text;
  EXPECT_TRUE(file.ok() || absl::IsInvalidArgument(file.status())) << file.status();
  return std::string(file.status().message());
}

TEST(JobFile, Yaml_FillsTheSpec) {
  const auto file = Parse(kGood);
  ASSERT_TRUE(file.ok()) << file.status();
  const v1::JobSpec& spec = file->spec;
  EXPECT_EQ(spec.model().uri(), "/models/tiny");
  EXPECT_EQ(spec.data().overlong(), v1::DataSource::OVERLONG_DROP);
  EXPECT_EQ(spec.training().epochs(), 1.5);
  EXPECT_EQ(spec.training().tokens_per_step(), 4096);
  EXPECT_EQ(spec.training().learning_rate(), 2e-4);
  EXPECT_EQ(spec.training().schedule(), v1::Training::SCHEDULE_COSINE);
  EXPECT_EQ(spec.training().precision(), v1::Training::PRECISION_FP32);
  EXPECT_FALSE(spec.training().has_warmup_steps());
  EXPECT_EQ(spec.resources().device(), v1::Resources::DEVICE_CPU);
  EXPECT_THAT(spec.lora().targets(), ::testing::ElementsAre("q_proj", "v_proj"));
  EXPECT_EQ(spec.priority(), -3);
}

TEST(JobFile, ProtobufJson_ReadsTheSame) {
  const auto yaml = Parse(kGood);
  ASSERT_TRUE(yaml.ok()) << yaml.status();
  for (const bool preserve_names : {false, true}) {
    google::protobuf::util::JsonPrintOptions options;
    options.add_whitespace = true;
    options.preserve_proto_field_names = preserve_names;
    std::string json;  // int64 are strings, enums full names, fields in lowerCamelCase or not
    ASSERT_TRUE(google::protobuf::util::MessageToJsonString(yaml->spec, &json, options).ok());
    const auto again = Parse(json);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(yaml->spec, again->spec)) << json;
  }
}

TEST(JobFile, JsonSurrogatePair_IsOneCharacter) {
  const auto file = Parse(R"({"display_name": "\ud83d\ude00 \\ud83d \u00e9\/", "model": {"uri": "/m"}})");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->spec.display_name(), "😀 \\ud83d é/");
}

TEST(JobFile, WholeNumberForms_AreRead) {
  for (const char* text : {"1000000", "1e6", "\"1000000\"", "1000000.0"}) {
    const auto file = Parse(std::string("training: {steps: ") + text + "}");
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->spec.training().steps(), 1'000'000) << text;
  }
}

TEST(JobFile, Example_IsValid) {
  const auto file = ReadJobFile(std::string(TEMPER_SOURCE_DIR) + "/client/examples/sft.yaml");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->spec.model().uri(), std::string(TEMPER_SOURCE_DIR) + "/client/examples/SmolLM2-135M-Instruct");
}

struct BadFile {
  const char* name;
  const char* text;
  std::vector<const char*> expected;  // parts of the message
};

class JobFileBad : public ::testing::TestWithParam<BadFile> {};

TEST_P(JobFileBad, IsRefused_SayingWhereAndWhatToWrite) {
  const std::string error = ErrorOf(GetParam().text);
  for (const char* part : GetParam().expected) EXPECT_THAT(error, HasSubstr(part));
}

INSTANTIATE_TEST_SUITE_P(
    All, JobFileBad,
    ::testing::Values(
        BadFile{"UnknownField",
                "model: {uri: /m}\ntraining:\n  steps: 3\n  learning_rat: 1e-4\n",
                {"job.yaml:4: training.learning_rat: unknown field; did you mean 'learning_rate'?"}},
        BadFile{"UnknownFieldFarFromAll",
                "training:\n  batch_size: 8\n",
                {"job.yaml:2: training.batch_size: unknown field; possible here: steps, epochs, tokens, max_minutes, "
                 "tokens_per_step"}},
        BadFile{"UnknownTopField", "modle: {uri: /m}\n", {"job.yaml:1: modle: unknown field; did you mean 'model'?"}},
        BadFile{
            "NothingPossible", "method: {sft: {mask: 1}}", {"method.sft.mask: unknown field; nothing can be set here"}},
        BadFile{"TextForNumber",
                "training:\n  steps: many\n",
                {"job.yaml:2: training.steps: expected a whole number, found 'many'"}},
        BadFile{"FractionForWhole", "training: {steps: 1.5}", {"expected a whole number, found '1.5'"}},
        BadFile{"TooLargeForInt32", "priority: 5000000000", {"priority: ", "does not fit into 32 bits"}},
        BadFile{"NotFinite", "training: {learning_rate: .nan}", {"expected a number, found '.nan'"}},
        BadFile{"Infinite", "training: {learning_rate: inf}", {"expected a number, found 'inf'"}},
        BadFile{"MapForNumber", "training: {steps: {a: 1}}", {"training.steps: expected a whole number, found a map"}},
        BadFile{
            "ListForNumber", "training: {steps: [1, 2]}", {"training.steps: expected a whole number, found a list"}},
        BadFile{
            "TextForMap", "training: fast\n", {"job.yaml:1: training: expected a map with steps, epochs", "'fast'"}},
        BadFile{"UnknownEnum",
                "training:\n  schedule: cosin\n",
                {"job.yaml:2: training.schedule: expected one of constant, linear, cosine, wsd, found 'cosin'; did you "
                 "mean "
                 "'cosine'?"}},
        BadFile{"Null", "training:\n  steps:\n", {"training.steps: has no value; expected a whole number"}},
        BadFile{"NullMessage", "lora:\n", {"job.yaml:1: lora: has no value; write {}"}},
        BadFile{"Twice", "priority: 1\npriority: 2\n", {"job.yaml:2: priority: is given twice"}},
        BadFile{
            "TwiceInTwoSpellings", "displayName: a\ndisplay_name: b\n", {"job.yaml:2: display_name: is given twice"}},
        BadFile{"BothOfOneof",
                "training:\n  steps: 1\n  epochs: 1\n",
                {"job.yaml:3: training.epochs: excludes 'steps', which is given too"}},
        BadFile{"ListInList", "lora: {targets: [[q_proj]]}", {"lora.targets[0]: expected text, found a list"}},
        BadFile{"BadYaml", "model: {uri: /m\n", {"job.yaml:", "is not valid YAML or JSON"}},
        BadFile{"Empty", "# nothing\n", {"job.yaml: is empty"}},
        BadFile{"List", "- 1\n", {"expected a map with display_name, model", "found a list"}},
        BadFile{"TwoDocuments", "priority: 1\n---\npriority: 2\n", {"holds more than one document"}},
        // yaml-cpp finds documents without end here.
        BadFile{"TextBehindTheEnd", R"({"modri": "/m# "},SPm# "},SPD)", {"holds more than one document"}}),
    [](const auto& info) { return info.param.name; });

TEST(JobFile, SeveralProblems_AreAllReported) {
  const std::string error = ErrorOf("modle: 1\ntraining: {steps: x, schedul: y}\n");
  EXPECT_THAT(error, HasSubstr("modle"));
  EXPECT_THAT(error, HasSubstr("training.steps"));
  EXPECT_THAT(error, HasSubstr("training.schedul"));
}

TEST(JobFile, Override_ReplacesWhatStoodThere) {
  const auto file = Parse(kGood, {"training.steps=20", "training.schedule=linear", "lora.targets=[o_proj]",
                                  "training.adamw.beta2=0.95", "display_name=a=b"});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->spec.training().length_case(), v1::Training::kSteps);
  EXPECT_EQ(file->spec.training().steps(), 20);
  EXPECT_EQ(file->spec.training().schedule(), v1::Training::SCHEDULE_LINEAR);
  EXPECT_THAT(file->spec.lora().targets(), ::testing::ElementsAre("o_proj"));
  EXPECT_EQ(file->spec.training().adamw().beta2(), 0.95);
  EXPECT_EQ(file->spec.display_name(), "a=b");
}

TEST(JobFile, Columns_AreAMap_OverridesAddAndReplace) {
  const std::string text = std::string(kGood) + "\n";
  const std::string with = "data: {uri: /d, train_on: last_turn, columns: {messages: chat, tools: functions}}\n" +
                           text.substr(text.find("training:"));
  const auto file = Parse("model: {uri: /m}\n" + with, {"data.columns.messages=turns", "data.columns.documents=a.b"});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->spec.data().train_on(), v1::DataSource::TRAIN_ON_LAST_TURN);
  const auto& columns = file->spec.data().columns();
  ASSERT_EQ(columns.size(), 3);
  EXPECT_EQ(columns.at("messages"), "turns");
  EXPECT_EQ(columns.at("tools"), "functions");
  EXPECT_EQ(columns.at("documents"), "a.b");
  EXPECT_EQ(file->Where("data.columns.tools"), "job.yaml:2: data.columns.tools");
}

TEST(JobFile, Columns_OtherThanNames_AreRefused) {
  EXPECT_THAT(ErrorOf("data: {columns: [messages]}"),
              HasSubstr("data.columns: expected a map of names to names, like {name: name}, found a list"));
  EXPECT_THAT(ErrorOf("data: {columns: {messages: {a: b}}}"), HasSubstr("data.columns.messages: expected text"));
  EXPECT_THAT(ErrorOf("data: {columns: {messages: }}"), HasSubstr("data.columns.messages: has no value"));
  EXPECT_THAT(ErrorOf("data: {columns: {text: a, text: b}}"), HasSubstr("data.columns.text: is given twice"));
  EXPECT_THAT(ErrorOf("data: {train_on: last}"), HasSubstr("one of assistant, completion, all, last_turn"));
}

TEST(JobFile, BadOverride_IsRefused) {
  EXPECT_THAT(ErrorOf(kGood, {"training.step=20"}),
              HasSubstr("--set training.step=20: training.step: unknown field; did you mean 'steps'?"));
  EXPECT_THAT(ErrorOf(kGood, {"training.steps=x"}), HasSubstr("expected a whole number, found 'x'"));
  EXPECT_THAT(ErrorOf(kGood, {"training.steps"}), HasSubstr("expected FIELD=VALUE"));
  EXPECT_THAT(ErrorOf(kGood, {"training.steps.more=1"}), HasSubstr("has no field 'more': it is a whole number"));
  EXPECT_THAT(ErrorOf(kGood, {"lora={rank: 1"}), HasSubstr("the value is not valid YAML"));
}

TEST(JobFile, RelativeUris_AreMadeAbsolute) {
  const auto file = Parse(
      "model: {uri: ../m}\ndata: {uri: ./d.jsonl}\noutput: {uri: out}\nlora: {adapter: a}\n"
      "method: {distillation: {teacher: t}}\n",
      {"output.uri=elsewhere"});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->spec.model().uri(), "/m");
  EXPECT_EQ(file->spec.data().uri(), "/jobs/d.jsonl");
  EXPECT_EQ(file->spec.lora().adapter(), "/jobs/a");
  EXPECT_EQ(file->spec.method().distillation().teacher(), "/jobs/t");
  EXPECT_EQ(file->spec.output().uri(), (std::filesystem::current_path() / "elsewhere").string());
}

TEST(JobFile, AbsoluteUris_AreLeftAlone) {
  const auto file = Parse("model: {uri: 'hf://org/name'}\ndata: {uri: 'file:///d.jsonl'}\n");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->spec.model().uri(), "hf://org/name");
  EXPECT_EQ(file->spec.data().uri(), "file:///d.jsonl");
  EXPECT_FALSE(file->spec.has_output());
}

TEST(JobFile, Where_KnowsTheLine) {
  const auto file = Parse(kGood, {"output.max_shard_size=1"});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Where("training.learning_rate"), "job.yaml:8: training.learning_rate");
  EXPECT_EQ(file->Where("output.max_shard_size"), "job.yaml: output.max_shard_size");
}

TEST(ReadJobFile, Missing_IsNotFound) {
  const auto file = ReadJobFile("/nowhere/job.yaml");
  EXPECT_TRUE(absl::IsNotFound(file.status())) << file.status();
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("/nowhere/job.yaml: can't be read: No such file"));
}

TEST(ReadJobFile, Directory_IsRefused) {
  EXPECT_THAT(std::string(ReadJobFile("/").status().message()), HasSubstr("is a directory"));
}

}  // namespace
}  // namespace temper
