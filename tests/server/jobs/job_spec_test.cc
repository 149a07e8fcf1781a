// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_spec.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "common/rpc/status.h"
#include "tests/server/jobs/valid_spec.h"

namespace temper {
namespace {

using google::protobuf::TextFormat;

v1::JobSpec Parsed(const std::string& text) {
  v1::JobSpec spec;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &spec)) << text;
  return spec;
}

// The valid spec with `text` merged into it.
v1::JobSpec With(const std::string& text) {
  v1::JobSpec spec = ValidSpec();
  spec.MergeFrom(Parsed(text));
  return spec;
}

TEST(CompleteJobSpecTest, LeastSpec_GetsEveryDefault) {
  const auto spec = CompleteJobSpec(ValidSpec());
  ASSERT_TRUE(spec.ok()) << spec.status();
  const v1::JobSpec expected = Parsed(R"pb(
    display_name: "tiny"
    model { uri: "/models/tiny" }
    data { uri: "file:///data/train.jsonl" overlong: OVERLONG_TRUNCATE }
    method { sft {} }
    training {
      steps: 100
      tokens_per_step: 4096
      micro_batch_tokens: 2048
      learning_rate: 2e-5
      schedule: SCHEDULE_COSINE
      warmup_steps: 3
      adamw { beta1: 0.9 beta2: 0.999 epsilon: 1e-8 }
      max_grad_norm: 1
      precision: PRECISION_AUTO
      recompute: RECOMPUTE_AUTO
      numerics { max_skipped_steps: 5 on_spike: ON_SPIKE_WARN spike_deviations: 6 }
    }
    resources { device: DEVICE_CPU ranks_per_node: 1 nodes: 1 }
    output { uri: "/out" max_shard_size: 5000000000 }
    checkpoints { every_minutes: 15 keep_last: 2 }
    hang { step_minutes: 10 other_minutes: 360 }
    backend: BACKEND_AUTO)pb");
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(expected, *spec)) << difference;
}

TEST(CompleteJobSpecTest, CompleteSpec_IsLeftAsItIs) {
  const auto once = CompleteJobSpec(With("lora {} training { epochs: 2.5 }"));
  ASSERT_TRUE(once.ok()) << once.status();
  const auto twice = CompleteJobSpec(*once);
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_EQ(once->SerializeAsString(), twice->SerializeAsString());
}

TEST(CompleteJobSpecTest, Lora_HasItsDefaultsAndAnotherLearningRate) {
  const auto spec = CompleteJobSpec(With("lora { rank: 8 }"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->lora().alpha(), 16);
  EXPECT_THAT(spec->lora().targets(), testing::ElementsAre("all-linear"));
  EXPECT_EQ(spec->training().learning_rate(), 2e-4);
  EXPECT_EQ(spec->output().adapters(), v1::Output::ADAPTERS_ADAPTER);
  EXPECT_EQ(spec->output().adapter_format(), v1::Output::ADAPTER_FORMAT_PEFT);
}

TEST(CompleteJobSpecTest, Preference_HasTheDefaultsOfItsLoss) {
  const auto dpo = CompleteJobSpec(With("method { preference {} } lora {}"));
  ASSERT_TRUE(dpo.ok()) << dpo.status();
  EXPECT_EQ(dpo->method().preference().loss(), v1::PreferenceOptimization::LOSS_SIGMOID);
  EXPECT_EQ(dpo->method().preference().beta(), 0.1);
  EXPECT_FALSE(dpo->method().preference().has_margin());
  const auto simpo = CompleteJobSpec(With("method { preference { loss: LOSS_SIMPO } }"));
  ASSERT_TRUE(simpo.ok()) << simpo.status();
  EXPECT_EQ(simpo->method().preference().beta(), 2);
  EXPECT_EQ(simpo->method().preference().margin(), 1);
}

TEST(CompleteJobSpecTest, Preference_RefusesWhatWouldBeWrongWithoutAWord) {
  const auto refused = [](const std::string& text) {
    v1::JobSpec spec = With("method { preference {} } lora {}");
    spec.MergeFrom(Parsed(text));
    return std::string(CompleteJobSpec(spec).status().message());
  };
  EXPECT_EQ(refused(""), "");
  for (const char* field : {"z_loss: 0.1", "label_smoothing: 0.1"}) {
    EXPECT_THAT(refused(absl::StrCat("training { ", field, " }")),
                testing::HasSubstr("does not go together with method.preference"));
  }
  EXPECT_THAT(refused("data { train_on: TRAIN_ON_ALL }"), testing::HasSubstr("data.train_on"));
  EXPECT_THAT(refused("lora { dropout: 0.1 }"), testing::HasSubstr("lora.dropout"));
  EXPECT_THAT(refused("method { preference { loss: LOSS_IPO label_smoothing: 0.1 } }"),
              testing::HasSubstr("label_smoothing"));
  EXPECT_THAT(refused("method { preference { loss: LOSS_IPO length_normalized: true } }"),
              testing::HasSubstr("length_normalized"));
  EXPECT_THAT(refused("method { preference { margin: 1 } }"), testing::HasSubstr("method.preference.margin"));
  EXPECT_THAT(refused("data { columns { key: 'completion' value: 'x' } }"),
              testing::HasSubstr("prompt, chosen, rejected"));
  EXPECT_EQ(refused("data { columns { key: 'chosen' value: 'x' } }"), "");
}

TEST(CompleteJobSpecTest, Distillation_HasItsDefaults) {
  const auto forward = CompleteJobSpec(With("method { distillation { teacher: '/t' } } lora { dropout: 0.1 }"));
  ASSERT_TRUE(forward.ok()) << forward.status();
  const v1::Distillation& method = forward->method().distillation();
  EXPECT_EQ(method.divergence(), v1::Distillation::DIVERGENCE_FORWARD_KL);
  EXPECT_EQ(method.temperature(), 1);
  EXPECT_EQ(method.sft_weight(), 0);
  EXPECT_EQ(method.teacher_weight(), 0);
  EXPECT_EQ(forward->training().learning_rate(), 2e-4);
  const auto jsd = CompleteJobSpec(With("method { distillation { teacher: '/t' divergence: DIVERGENCE_JSD } }"));
  ASSERT_TRUE(jsd.ok()) << jsd.status();
  EXPECT_EQ(jsd->method().distillation().teacher_weight(), 0.5);
}

TEST(CompleteJobSpecTest, Distillation_RefusesWhatWouldBeWrongWithoutAWord) {
  const auto refused = [](const std::string& method, const std::string& rest = "") {
    v1::JobSpec spec = With("method { distillation { teacher: '/t' } }");
    spec.MergeFrom(Parsed(absl::StrCat("method { distillation { ", method, " } } ", rest)));
    return std::string(CompleteJobSpec(spec).status().message());
  };
  EXPECT_EQ(refused(""), "");
  EXPECT_THAT(refused("teacher: 'relative'"), testing::HasSubstr("'relative' is a relative path"));
  EXPECT_THAT(refused("temperature: -1"), testing::HasSubstr("method.distillation.temperature: must be over 0"));
  EXPECT_THAT(refused("sft_weight: 1.5"), testing::HasSubstr("method.distillation.sft_weight: must be 0 to 1"));
  EXPECT_THAT(refused("teacher_weight: 0.3"), testing::HasSubstr("is for the divergence JSD only"));
  EXPECT_THAT(refused("divergence: DIVERGENCE_JSD teacher_weight: 1"), testing::HasSubstr("must be between 0 and 1"));
  EXPECT_THAT(refused("", "data { columns { key: 'teacher_tokens' value: 'x' } }"),
              testing::HasSubstr("teacher_tokens"));
  for (const char* rest : {"training { z_loss: 0.1 }", "training { label_smoothing: 0.1 }", "backend: BACKEND_HF"}) {
    EXPECT_THAT(refused("", rest), testing::HasSubstr("does not go together with method.distillation")) << rest;
  }
}

TEST(CompleteJobSpecTest, DistillationWithoutATeacher_IsForWhatSamplesBring) {
  const auto refused = [](const std::string& method) {
    const std::string text =
        absl::StrCat("data { columns { key: 'teacher_tokens' value: 'x' } } method { distillation { ", method, " } }");
    return std::string(CompleteJobSpec(With(text)).status().message());
  };
  EXPECT_EQ(refused("sft_weight: 0.5"), "");
  EXPECT_THAT(refused("divergence: DIVERGENCE_REVERSE_KL"),
              testing::HasSubstr("method.distillation.divergence: needs a teacher"));
  EXPECT_THAT(refused("temperature: 2"), testing::HasSubstr("method.distillation.temperature: needs a teacher"));
}

TEST(CompleteJobSpecTest, Reward_LearnsFromWholeAnswers) {
  const auto spec = CompleteJobSpec(With("method { reward {} } data { columns { key: 'chosen' value: 'x' } }"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->data().overlong(), v1::DataSource::OVERLONG_DROP);
  EXPECT_EQ(spec->training().learning_rate(), 1e-5);
  EXPECT_EQ(CompleteJobSpec(With("method { reward {} } lora {}"))->training().learning_rate(), 1e-4);
}

TEST(CompleteJobSpecTest, Reward_RefusesWhatWouldBeWrongWithoutAWord) {
  for (const char* field : {"training { z_loss: 0.1 }", "training { label_smoothing: 0.1 }", "lora { dropout: 0.1 }",
                            "backend: BACKEND_HF", "lora {} output { adapter_format: ADAPTER_FORMAT_VLLM }"}) {
    v1::JobSpec spec = With("method { reward {} }");
    spec.MergeFrom(Parsed(field));
    EXPECT_THAT(std::string(CompleteJobSpec(spec).status().message()),
                testing::HasSubstr("does not go together with method.reward"))
        << field;
  }
  const auto refused = [](const std::string& text) {
    return std::string(CompleteJobSpec(With(text)).status().message());
  };
  EXPECT_THAT(refused("method { reward { centering: -1 } }"), testing::HasSubstr("method.reward.centering"));
  EXPECT_THAT(refused("method { reward {} } data { train_on: TRAIN_ON_ALL }"), testing::HasSubstr("data.train_on"));
}

TEST(CompleteJobSpecTest, LoraWithAnAdapter_LeavesToItWhatItSays) {
  const auto spec = CompleteJobSpec(With("lora { adapter: '/a' dropout: 0.5 }"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->lora().rank(), 0);
  EXPECT_EQ(spec->lora().alpha(), 0);
  EXPECT_TRUE(spec->lora().targets().empty());
  EXPECT_EQ(spec->lora().dropout(), 0.5);
}

TEST(CompleteJobSpecTest, TokensPerStep_AreWholeMicroBatches) {
  const auto tokens = [](const std::string& text) {
    const auto spec = CompleteJobSpec(With("training { " + text + " }"));
    EXPECT_TRUE(spec.ok()) << spec.status();
    return std::make_pair(spec->training().tokens_per_step(), spec->training().micro_batch_tokens());
  };
  EXPECT_EQ(tokens("tokens_per_step: 1000"), std::make_pair(int64_t{1000}, int64_t{1000}));
  EXPECT_EQ(tokens("tokens_per_step: 5000"), std::make_pair(int64_t{6144}, int64_t{2048}));
  EXPECT_EQ(tokens("micro_batch_tokens: 8192"), std::make_pair(int64_t{8192}, int64_t{8192}));
}

TEST(CompleteJobSpecTest, EpochsAsLength_LeaveWarmupToTheRank) {
  const auto spec = CompleteJobSpec(With("training { epochs: 0.5 }"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_FALSE(spec->training().has_warmup_steps());
}

TEST(CompleteJobSpecTest, DisplayName_ComesFromTheModelInWholeCharacters) {
  EXPECT_EQ(CompleteJobSpec(With("model { uri: 'file:///m/SmolLM2//' }"))->display_name(), "SmolLM2");
  EXPECT_EQ(CompleteJobSpec(With("model { uri: '/' }"))->display_name(), "job");
  EXPECT_EQ(CompleteJobSpec(With("model { uri: 's3://bucket/m/tiny?endpoint=http://h/x' }"))->display_name(), "tiny");
  EXPECT_EQ(CompleteJobSpec(With("model { uri: 'hf://org/tiny@main' }"))->display_name(), "tiny");
  EXPECT_EQ(CompleteJobSpec(With("model { uri: '/m/a\\001b' }"))->display_name(), "a?b");
  std::string name;
  for (int i = 0; i < 60; ++i) name += "ä";
  EXPECT_EQ(CompleteJobSpec(With("model { uri: '/m/x" + name + "' }"))->display_name(), "x" + name.substr(0, 98));
}

struct WrongCase {
  std::string change;  // text format
  std::string field;
  std::string message;  // part of it
};

TEST(CompleteJobSpecTest, WrongFields_AreNamedWithTheirLimits) {
  const std::vector<WrongCase> cases = {
      {"display_name: '" + std::string(101, 'x') + "'", "spec.display_name", "at most 100 characters, not 101"},
      {"display_name: 'a\\nb'", "spec.display_name", "control characters"},
      {"model { uri: 'ftp://host/model' }", "spec.model.uri", "has the scheme ftp"},
      {"hang { step_minutes: -1 }", "spec.hang.step_minutes", "0 to 10,000"},
      {"hang { other_minutes: 1e6 }", "spec.hang.other_minutes", "0 to 100,000"},
      {"model { uri: 's3://key:hunter2@bucket/model' }", "spec.model.uri", "holds a user name or a password"},
      {"model { uri: 'hf://model' }", "spec.model.uri", "names no repository"},
      {"model { uri: 's3://bucket/model?regoin=x' }", "spec.model.uri", "the parameter `regoin`"},
      {"output { uri: 'hf://org/model' }", "spec.output.uri", "only read"},
      {"model { uri: 'models/tiny' }", "spec.model.uri", "relative path"},
      {"model { uri: 'file://models/tiny' }", "spec.model.uri", "three slashes"},
      {"model { uri: '/" + std::string(4096, 'x') + "' }", "spec.model.uri", "at most 4096 bytes"},
      {"model { uri: '/a\\000b' }", "spec.model.uri", "NUL"},
      {"data { uri: 'train.jsonl' }", "spec.data.uri", "relative path"},
      {"data { max_sample_tokens: 7 }", "spec.data.max_sample_tokens", "at least 8, not 7"},
      {"data { max_sample_tokens: -1 }", "spec.data.max_sample_tokens", "at least 8, not -1"},
      {"data { train_on: 9 }", "spec.data.train_on", "the value 9, which this server does not know"},
      {"data { columns { key: 'message' value: 'x' } }", "spec.data.columns.message", "is not one of messages, prompt"},
      {"data { columns { key: 'text' value: '' } }", "spec.data.columns.text", "1 to 200 bytes"},
      {"data { columns { key: 'text' value: '" + std::string(201, 'x') + "' } }", "spec.data.columns.text",
       "1 to 200 bytes"},
      {"data { columns { key: 'messages' value: 'x' } columns { key: 'tools' value: 'x' } }", "spec.data.columns.tools",
       "names 'x', which another of our names stands for already"},
      {"data { columns { key: 'prompt' value: 'x' } }", "spec.data.columns", "both prompt and completion, or neither"},
      {"data { columns { key: 'messages' value: 'x' } columns { key: 'text' value: 'y' } }", "spec.data.columns",
       "must choose among messages"},
      {"data { sources { uri: '/b' } }", "spec.data", "uri or sources, not both"},
      {"profile { steps: 21 }", "spec.profile.steps", "1 to 20, not 21"},
      {"profile { first_step: -1 }", "spec.profile.first_step", "1 to 10,000,000, not -1"},
      {"validation {}", "spec.validation", "needs uri (samples of its own) or share"},
      {"validation { share: 1 }", "spec.validation.share", "over 0 and below 1, not 1"},
      {"validation { uri: 'x' }", "spec.validation.uri", "relative path"},
      {"validation { share: 0.1 max_samples: -1 }", "spec.validation.max_samples", "1 to 1,000,000, not -1"},
      {"validation { share: 0.1 every_steps: -1 }", "spec.validation.every_steps", "1 to 10,000,000"},
      {"validation { share: 0.1 early_stop { patience: 1001 } }", "spec.validation.early_stop.patience", "1 to 1000"},
      {"validation { share: 0.1 early_stop { min_improvement: -1 } }", "spec.validation.early_stop.min_improvement",
       "at least 0"},
      {"labels { key: '' value: 'x' }", "spec.labels.", "a key at least one"},
      {"labels { key: 'a b' value: 'x' }", "spec.labels.a b", "at most 63 characters of a-z"},
      {R"(owner: 'a\nb')", "spec.owner", "control characters"},
      {"training { tokens: 7 }", "spec.training.tokens", "at least 8 and at most 2^60, not 7"},
      {"training { tokens: 1152921504606846976 }", "spec.training.tokens", "at most 10,000,000 steps"},
      {"training { max_minutes: -1 }", "spec.training.max_minutes", "at least 0"},
      {"training { decay_ratio: 0.1 }", "spec.training.decay_ratio", "for the schedule WSD only"},
      {"training { schedule: SCHEDULE_WSD decay_ratio: 1.1 }", "spec.training.decay_ratio", "over 0 and at most 1"},
      {"training { freeze: '' }", "spec.training.freeze[0]", "a pattern of 1 to 500 bytes"},
      {"lora {} training { freeze: 'x' }", "spec.training.freeze", "does not go together with lora"},
      {"training { label_smoothing: 1 }", "spec.training.label_smoothing", "0 to below 1"},
      {"training { z_loss: -0.1 }", "spec.training.z_loss", "0 to 1"},
      {"resources { nodes: 65 }", "spec.resources.nodes", "1 to 64"},
      {"training { numerics { max_skipped_steps: -1 } }", "spec.training.numerics.max_skipped_steps", "1 to 1000"},
      {"training { numerics { on_spike: 9 } }", "spec.training.numerics.on_spike", "the value 9"},
      {"training { numerics { spike_deviations: 1 } }", "spec.training.numerics.spike_deviations", "at least 2"},
      {"lora { rank: -1 }", "spec.lora.rank", "1 to 1024, not -1"},
      {"lora { rank: 1025 }", "spec.lora.rank", "1 to 1024, not 1025"},
      {"lora { alpha: -2 }", "spec.lora.alpha", "over 0, not -2"},
      {"lora { alpha: nan }", "spec.lora.alpha", "over 0, not nan"},
      {"lora { alpha: inf }", "spec.lora.alpha", "over 0, not inf"},
      {"lora { targets: 'q_proj' targets: '' }", "spec.lora.targets[1]", "must not be empty"},
      {"lora { targets: 'q_proj' targets: 'q_proj' }", "spec.lora.targets[1]", "given twice"},
      {"lora { dropout: 1 }", "spec.lora.dropout", "0 to below 1, not 1"},
      {"lora { dropout: nan }", "spec.lora.dropout", "0 to below 1, not nan"},
      {"lora { adapter: 'here' }", "spec.lora.adapter", "is a relative path"},
      {"lora { adapter: '/a' rank: 8 }", "spec.lora.rank", "is what lora.adapter says"},
      {"lora { adapter: '/a' alpha: 8 }", "spec.lora.alpha", "is what lora.adapter says"},
      {"lora { adapter: '/a' targets: 'q_proj' }", "spec.lora.targets", "is what lora.adapter says"},
      {"lora { adapter: '/a' rslora: true }", "spec.lora.rslora", "is what lora.adapter says"},
      {"lora { adapter: '/a' dora: true }", "spec.lora.dora", "is what lora.adapter says"},
      {"lora { adapter: '/a' modules_to_save: 'lm_head' }", "spec.lora.modules_to_save", "is what lora.adapter says"},
      {"lora { modules_to_save: '' }", "spec.lora.modules_to_save[0]", "must not be empty"},
      {"lora { modules_to_save: 'a' modules_to_save: 'a' }", "spec.lora.modules_to_save[1]", "given twice"},
      {"output { adapters: ADAPTERS_MERGED }", "spec.output.adapters", "for jobs with lora only"},
      {"lora {} output { adapters: 9 }", "spec.output.adapters", "the value 9"},
      {"output { adapter_format: ADAPTER_FORMAT_VLLM }", "spec.output.adapter_format", "for jobs with lora only"},
      {"lora {} output { adapter_format: 9 }", "spec.output.adapter_format", "the value 9"},
      {"training { steps: 0 }", "spec.training.steps", "1 to 10,000,000, not 0"},
      {"training { steps: 10000001 }", "spec.training.steps", "1 to 10,000,000"},
      {"training { epochs: 0 }", "spec.training.epochs", "over 0 and at most 1000, not 0"},
      {"training { epochs: 1001 }", "spec.training.epochs", "over 0 and at most 1000"},
      {"training { epochs: nan }", "spec.training.epochs", "not nan"},
      {"training { tokens_per_step: 7 }", "spec.training.tokens_per_step", "at least 8"},
      {"training { tokens_per_step: 9223372036854775807 }", "spec.training.tokens_per_step", "at most 2^40"},
      {"training { micro_batch_tokens: 4 }", "spec.training.micro_batch_tokens", "8 to 1,048,576, not 4"},
      {"training { micro_batch_tokens: 1048577 }", "spec.training.micro_batch_tokens", "8 to 1,048,576"},
      {"training { learning_rate: -0.1 }", "spec.training.learning_rate", "over 0 and at most 1, not -0.1"},
      {"training { learning_rate: 3 }", "spec.training.learning_rate", "over 0 and at most 1, not 3"},
      {"training { learning_rate: nan }", "spec.training.learning_rate", "not nan"},
      {"training { schedule: 17 }", "spec.training.schedule", "the value 17, which this server does not know"},
      {"training { warmup_steps: -1 }", "spec.training.warmup_steps", "at least 0"},
      {"training { final_learning_rate_ratio: 1.5 }", "spec.training.final_learning_rate_ratio", "0 to 1, not 1.5"},
      {"training { adamw { beta1: 1 } }", "spec.training.adamw.beta1", "0 to below 1, not 1"},
      {"training { adamw { beta2: -0.5 } }", "spec.training.adamw.beta2", "0 to below 1"},
      {"training { adamw { epsilon: 0 } }", "spec.training.adamw.epsilon", "over 0"},
      {"training { adamw { weight_decay: -1 } }", "spec.training.adamw.weight_decay", "at least 0"},
      {"training { max_grad_norm: -1 }", "spec.training.max_grad_norm", "at least 0"},
      {"training { max_grad_norm: inf }", "spec.training.max_grad_norm", "not inf"},
      {"training { seed: -1 }", "spec.training.seed", "at least 0"},
      {"training { precision: 9 }", "spec.training.precision", "the value 9"},
      {"backend: 9", "spec.backend", "the value 9"},
      {"training { recompute: 9 }", "spec.training.recompute", "the value 9"},
      {"resources { device: 5 }", "spec.resources.device", "the value 5"},
      {"backend: BACKEND_HF resources { device: DEVICE_CUDA }", "spec.resources.device", "trained on CPU"},
      {"resources { threads_per_rank: 1025 }", "spec.resources.threads_per_rank", "0 to 1024"},
      {"resources { ranks_per_node: -1 }", "spec.resources.ranks_per_node", "1 to 64"},
      {"resources { ranks_per_node: 65 }", "spec.resources.ranks_per_node", "1 to 64"},
      {"output { uri: 'az://bucket' }", "spec.output.uri", "has the scheme az"},
      {"output { max_shard_size: 1000 }", "spec.output.max_shard_size", "at least 1048576"},
      {"priority: 1001", "spec.priority", "-1000 to 1000, not 1001"},
      {"priority: -1001", "spec.priority", "-1000 to 1000"},
  };
  for (const WrongCase& wrong : cases) {
    const auto spec = CompleteJobSpec(With(wrong.change));
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << wrong.change;
    const auto violations = FieldViolationsOf(spec.status());
    ASSERT_EQ(violations.size(), 1u) << wrong.change << ": " << spec.status();
    EXPECT_EQ(violations[0].field, wrong.field) << wrong.change;
    EXPECT_THAT(violations[0].description, testing::HasSubstr(wrong.message)) << wrong.change;
  }
}

TEST(CompleteJobSpecTest, Sources_HaveWeightsThatMeanSomething) {
  v1::JobSpec spec = With("data { sources { uri: '/a' } sources { uri: '/b' weight: 0 } }");
  spec.mutable_data()->clear_uri();
  ASSERT_TRUE(CompleteJobSpec(spec).ok()) << CompleteJobSpec(spec).status();
  EXPECT_EQ(CompleteJobSpec(spec)->data().sources(0).weight(), 1);
  spec.mutable_data()->mutable_sources(0)->set_weight(0);
  EXPECT_THAT(std::string(CompleteJobSpec(spec).status().message()), testing::HasSubstr("weights that sum to 0"));
  spec.mutable_data()->mutable_sources(1)->set_weight(1001);
  EXPECT_EQ(FieldViolationsOf(CompleteJobSpec(spec).status()).at(0).field, "spec.data.sources[1].weight");
  (*spec.mutable_data()->mutable_sources(1)->mutable_columns())["message"] = "x";
  spec.mutable_data()->mutable_sources(1)->set_weight(1);
  EXPECT_EQ(FieldViolationsOf(CompleteJobSpec(spec).status()).at(0).field, "spec.data.sources[1].columns.message");
}

TEST(CompleteJobSpecTest, EmptySpec_NamesEveryRequiredField) {
  const auto spec = CompleteJobSpec({});
  std::vector<std::string> fields;
  for (const FieldViolation& violation : FieldViolationsOf(spec.status())) fields.push_back(violation.field);
  EXPECT_THAT(fields, testing::ElementsAre("spec.model.uri", "spec.data.uri", "spec.training", "spec.output.uri"));
  EXPECT_THAT(
      std::string(spec.status().message()),
      testing::HasSubstr("spec.training: needs steps (optimizer steps), epochs (passes over the data) or tokens"));
}

TEST(CompleteJobSpecTest, SecretInAUri_IsNotRepeated) {
  const auto spec = CompleteJobSpec(With("output { uri: 's3://key:hunter2@bucket/out' }"));
  EXPECT_THAT(std::string(spec.status().message()), testing::HasSubstr("spec.output.uri: holds a user name"));
  EXPECT_THAT(std::string(spec.status().message()), testing::Not(testing::HasSubstr("hunter2")));
  EXPECT_TRUE(CompleteJobSpec(With("output { uri: 'file:///out@home' }")).ok());
}

TEST(CompleteJobSpecTest, FieldOfANewerClient_IsRefused) {
  v1::JobSpec spec = ValidSpec();
  auto& training = *spec.mutable_training();
  training.GetReflection()->MutableUnknownFields(&training)->AddVarint(999, 1);
  const auto violations = FieldViolationsOf(CompleteJobSpec(spec).status());
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "spec.training");
  EXPECT_THAT(violations[0].description, testing::HasSubstr("a field of number 999"));
}

TEST(CompleteJobSpecTest, Limits_AreInclusiveWhereTheySaySo) {
  for (const char* change :
       {"training { steps: 10000000 }", "training { epochs: 1000 }", "training { learning_rate: 1 }",
        "lora { rank: 1024 }", "training { micro_batch_tokens: 1048576 }", "training { micro_batch_tokens: 8 }",
        "training { tokens_per_step: 8 }", "data { max_sample_tokens: 8 }", "priority: 1000",
        "data { columns { key: 'prompt' value: 'q' } columns { key: 'completion' value: 'a' } train_on: TRAIN_ON_ALL }",
        "priority: -1000", "output { max_shard_size: 1048576 }", "training { max_grad_norm: 0 }",
        "training { adamw { beta1: 0 } }", "training { final_learning_rate_ratio: 1 }",
        "resources { threads_per_rank: 1024 ranks_per_node: 64 }"}) {
    const auto spec = CompleteJobSpec(With(change));
    EXPECT_TRUE(spec.ok()) << change << ": " << spec.status();
  }
}

}  // namespace
}  // namespace temper
