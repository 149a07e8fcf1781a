// SPDX-License-Identifier: Apache-2.0
#include "worker/data/batch_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/worker/data/character_model.h"
#include "tests/worker/data/data_file.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BatchStreamTest : public testing::Test {
 protected:
  // Sample i is "U" "A" and 1 + i % 7 times "x", then </s>: 4 to 10 tokens.
  static std::string Lines(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      text += R"({"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": ")" +
              std::string(1 + i % 7, 'x') + R"("}]})" + "\n";
    }
    return text;
  }

  std::unique_ptr<BatchStream> Open(BatchOptions options) {
    options.uri = file_.uri();
    absl::StatusOr<std::unique_ptr<BatchStream>> stream = BatchStream::Open(options, builder_);
    EXPECT_TRUE(stream.ok()) << stream.status();
    return stream.ok() ? *std::move(stream) : nullptr;
  }

  absl::Status OpenStatus(BatchOptions options) {
    options.uri = file_.uri();
    return BatchStream::Open(options, builder_).status();
  }

  static std::vector<int64_t> Tokens(const std::vector<MicroBatch>& step) {
    std::vector<int64_t> tokens;
    for (const MicroBatch& batch : step) {
      tokens.insert(tokens.end(), batch.tokens_T.begin(), batch.tokens_T.end());
      tokens.push_back(-1);
    }
    return tokens;
  }

  const DataFile file_{Lines(100)};
  const Tokenizer tokenizer_ = CharacterTokenizer();
  const absl::StatusOr<ChatTemplate> template_ = CompileTemplate(
      "{% for m in messages %}{{ 'A' + m.content + eos_token if m.role == 'assistant' else m.content }}{% endfor %}"
      "{% if add_generation_prompt %}A{% endif %}");
  const SampleBuilder builder_{tokenizer_, template_, "</s>"};
};

TEST_F(BatchStreamTest, NextStep_OneDocument_TargetsAreTheNextTokens) {
  const DataFile file(Lines(1));
  const BatchOptions options = {.uri = file.uri(), .micro_batch_tokens = 8, .tokens_per_step = 8, .steps = 1};
  absl::StatusOr<std::unique_ptr<BatchStream>> stream = BatchStream::Open(options, builder_);
  ASSERT_TRUE(stream.ok()) << stream.status();
  const std::vector<MicroBatch> step = (*stream)->NextStep();
  ASSERT_EQ(step.size(), 1);
  // U A x </s>
  EXPECT_THAT(step[0].tokens_T, ElementsAre(0, 0, 0, 2));
  EXPECT_THAT(step[0].targets_T, ElementsAre(0, 0, 2, 0));
  EXPECT_THAT(step[0].positions_T, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(step[0].loss_mask_T, ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(step[0].document_starts, ElementsAre(0, 4));
  EXPECT_EQ(step[0].capacity, 8);
  EXPECT_TRUE((*stream)->NextStep().empty());
}

TEST_F(BatchStreamTest, NextStep_PackedDocuments_NeverLookAcrossABorder) {
  std::unique_ptr<BatchStream> stream = Open({.micro_batch_tokens = 32, .tokens_per_step = 32, .epochs = 1});
  ASSERT_NE(stream, nullptr);
  int documents = 0;
  int64_t tokens = 0, scored = 0;
  for (std::vector<MicroBatch> step = stream->NextStep(); !step.empty(); step = stream->NextStep()) {
    ASSERT_EQ(step.size(), 1);
    const MicroBatch& batch = step[0];
    ASSERT_LE(batch.num_tokens(), 32);
    ASSERT_EQ(batch.document_starts.front(), 0);
    ASSERT_EQ(batch.document_starts.back(), batch.num_tokens());
    for (size_t d = 0; d + 1 < batch.document_starts.size(); ++d, ++documents) {
      const int64_t begin = batch.document_starts[d], end = batch.document_starts[d + 1];
      for (int64_t t = begin; t < end; ++t) {
        ASSERT_EQ(batch.positions_T[t], t - begin);
        ASSERT_EQ(batch.targets_T[t], t + 1 < end ? batch.tokens_T[t + 1] : 0);
        ASSERT_EQ(batch.loss_mask_T[t], t > begin && t + 1 < end);
        scored += batch.loss_mask_T[t];
      }
      tokens += end - begin;
    }
  }
  EXPECT_EQ(documents, 100);
  EXPECT_EQ(tokens, stream->statistics().samples.tokens);
  EXPECT_EQ(scored, stream->statistics().samples.scored_tokens);
  EXPECT_DOUBLE_EQ(stream->epochs_done(), 1.0);
}

TEST_F(BatchStreamTest, TotalSteps_FollowFromEpochs) {
  const BatchOptions options = {.micro_batch_tokens = 32, .tokens_per_step = 65, .epochs = 1};
  std::unique_ptr<BatchStream> stream = Open(options);
  ASSERT_NE(stream, nullptr);
  const BatchStatistics& statistics = stream->statistics();
  EXPECT_EQ(statistics.micro_batches_per_step, 3);
  EXPECT_EQ(stream->total_steps(), (statistics.packs_per_epoch + 2) / 3);
  EXPECT_NEAR(statistics.padding_ratio,
              1.0 - static_cast<double>(statistics.samples.tokens) / (32.0 * statistics.packs_per_epoch), 1e-12);
  int64_t steps = 0, rows = 0;
  for (std::vector<MicroBatch> step = stream->NextStep(); !step.empty(); step = stream->NextStep(), ++steps) {
    rows += step.size();
  }
  EXPECT_EQ(steps, stream->total_steps());
  EXPECT_EQ(rows, statistics.packs_per_epoch);

  BatchOptions half = options;
  half.epochs = 0.5;
  std::unique_ptr<BatchStream> half_stream = Open(half);
  ASSERT_NE(half_stream, nullptr);
  EXPECT_EQ(half_stream->total_steps(), ((statistics.packs_per_epoch + 1) / 2 + 2) / 3);
}

TEST_F(BatchStreamTest, NextStep_GivenSteps_GoesRoundTheDataInNewOrders) {
  std::unique_ptr<BatchStream> stream = Open({.micro_batch_tokens = 1000, .tokens_per_step = 1000, .steps = 3});
  ASSERT_NE(stream, nullptr);
  EXPECT_EQ(stream->total_steps(), 3);
  EXPECT_EQ(stream->statistics().packs_per_epoch, 1);
  const std::vector<int64_t> first = Tokens(stream->NextStep());
  const std::vector<int64_t> second = Tokens(stream->NextStep());
  EXPECT_DOUBLE_EQ(stream->epochs_done(), 2.0);
  EXPECT_NE(first, second);
  EXPECT_EQ(stream->NextStep().size(), 1);
  EXPECT_TRUE(stream->NextStep().empty());
}

TEST_F(BatchStreamTest, NextStep_SameOptions_SameBatches_OtherSeed_OtherBatches) {
  const BatchOptions options = {.micro_batch_tokens = 64, .tokens_per_step = 128, .epochs = 2, .seed = 3};
  BatchOptions threads = options, seed = options;
  threads.threads = 3;
  seed.seed = 4;
  std::unique_ptr<BatchStream> a = Open(options), b = Open(threads), c = Open(seed);
  ASSERT_TRUE(a && b && c);
  bool differs = false;
  for (int64_t step = 0; step < a->total_steps(); ++step) {
    const std::vector<int64_t> tokens = Tokens(a->NextStep());
    ASSERT_EQ(tokens, Tokens(b->NextStep()));
    differs = differs || tokens != Tokens(c->NextStep());
  }
  EXPECT_TRUE(differs);
}

TEST_F(BatchStreamTest, Seek_AnyPosition_GoesOnAsIfNeverStopped) {
  const BatchOptions options = {.micro_batch_tokens = 64, .tokens_per_step = 128, .epochs = 2.5, .seed = 3};
  std::unique_ptr<BatchStream> stream = Open(options), resumed = Open(options);
  ASSERT_TRUE(stream && resumed);
  std::vector<BatchPosition> positions;
  std::vector<std::vector<int64_t>> steps;
  for (int64_t step = 0; step <= stream->total_steps(); ++step) {
    positions.push_back(stream->position());
    steps.push_back(Tokens(stream->NextStep()));
  }
  // Backwards, so that each seek has to go somewhere else.
  for (size_t i = positions.size(); i-- > 0;) {
    const absl::Status sought = resumed->Seek(positions[i]);
    ASSERT_TRUE(sought.ok()) << sought;
    EXPECT_EQ(Tokens(resumed->NextStep()), steps[i]) << i;
    if (i + 1 < positions.size()) {
      EXPECT_EQ(Tokens(resumed->NextStep()), steps[i + 1]) << i;
    }
  }
}

TEST_F(BatchStreamTest, Seek_ImpossiblePosition_IsOutOfRange) {
  std::unique_ptr<BatchStream> stream = Open({.micro_batch_tokens = 64, .tokens_per_step = 128, .epochs = 1});
  ASSERT_NE(stream, nullptr);
  for (const BatchPosition& position :
       {BatchPosition{0, 1, 1}, BatchPosition{0, -1, 0}, BatchPosition{0, 2000, 1000}, BatchPosition{7, 0, 3}}) {
    EXPECT_EQ(stream->Seek(position).code(), absl::StatusCode::kOutOfRange);
  }
}

TEST_F(BatchStreamTest, Open_OptionsOutOfRange_AreInvalid) {
  const std::map<std::string, BatchOptions> cases = {
      {"exactly one of steps", {.steps = 0, .epochs = 0}},
      {"exactly one of steps (5) and epochs (1)", {.steps = 5, .epochs = 1}},
      {"micro_batch_tokens is 1", {.micro_batch_tokens = 1, .steps = 1}},
      {"tokens_per_step is 0", {.tokens_per_step = 0, .steps = 1}},
      {"max_sample_tokens is 1", {.max_sample_tokens = 1, .steps = 1}},
      {"max_sample_tokens (3000) is more than micro_batch_tokens (2048)", {.max_sample_tokens = 3000, .steps = 1}}};
  for (const auto& [message, options] : cases) {
    const absl::Status status = OpenStatus(options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace temper
