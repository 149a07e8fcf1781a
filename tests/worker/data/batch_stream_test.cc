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
    options.samples.sources = {{.uri = file_.uri()}};
    absl::StatusOr<std::unique_ptr<BatchStream>> stream = BatchStream::Open(options, builder_);
    EXPECT_TRUE(stream.ok()) << stream.status();
    return stream.ok() ? *std::move(stream) : nullptr;
  }

  absl::Status OpenStatus(BatchOptions options) {
    options.samples.sources = {{.uri = file_.uri()}};
    return BatchStream::Open(options, builder_).status();
  }

  static std::vector<MicroBatch> Next(BatchStream& stream) {
    absl::StatusOr<std::vector<MicroBatch>> step = stream.NextStep();
    EXPECT_TRUE(step.ok()) << step.status();
    return step.ok() ? *std::move(step) : std::vector<MicroBatch>();
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
  const BatchOptions options = {
      .samples = {.sources = {{.uri = file.uri()}}}, .micro_batch_tokens = 8, .tokens_per_step = 8, .steps = 1};
  absl::StatusOr<std::unique_ptr<BatchStream>> stream = BatchStream::Open(options, builder_);
  ASSERT_TRUE(stream.ok()) << stream.status();
  const std::vector<MicroBatch> step = Next(**stream);
  ASSERT_EQ(step.size(), 1);
  // U A x </s>
  EXPECT_THAT(step[0].tokens_T, ElementsAre(0, 0, 0, 2));
  EXPECT_THAT(step[0].targets_T, ElementsAre(0, 0, 2, 0));
  EXPECT_THAT(step[0].positions_T, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(step[0].loss_mask_T, ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(step[0].document_starts, ElementsAre(0, 4));
  EXPECT_EQ(step[0].capacity, 8);
  EXPECT_TRUE(Next(**stream).empty());
}

TEST_F(BatchStreamTest, NextStep_PackedDocuments_NeverLookAcrossABorder) {
  std::unique_ptr<BatchStream> stream = Open({.micro_batch_tokens = 32, .tokens_per_step = 32, .epochs = 1});
  ASSERT_NE(stream, nullptr);
  int documents = 0;
  int64_t tokens = 0, scored = 0;
  for (std::vector<MicroBatch> step = Next(*stream); !step.empty(); step = Next(*stream)) {
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
  for (std::vector<MicroBatch> step = Next(*stream); !step.empty(); step = Next(*stream), ++steps) {
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
  const std::vector<int64_t> first = Tokens(Next(*stream));
  const std::vector<int64_t> second = Tokens(Next(*stream));
  EXPECT_DOUBLE_EQ(stream->epochs_done(), 2.0);
  EXPECT_NE(first, second);
  EXPECT_EQ(Next(*stream).size(), 1);
  EXPECT_TRUE(Next(*stream).empty());
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
    const std::vector<int64_t> tokens = Tokens(Next(*a));
    ASSERT_EQ(tokens, Tokens(Next(*b)));
    differs = differs || tokens != Tokens(Next(*c));
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
    steps.push_back(Tokens(Next(*stream)));
  }
  // Backwards, so that each seek has to go somewhere else.
  for (size_t i = positions.size(); i-- > 0;) {
    const absl::Status sought = resumed->Seek(positions[i]);
    ASSERT_TRUE(sought.ok()) << sought;
    EXPECT_EQ(Tokens(Next(*resumed)), steps[i]) << i;
    if (i + 1 < positions.size()) {
      EXPECT_EQ(Tokens(Next(*resumed)), steps[i + 1]) << i;
    }
  }
}

TEST_F(BatchStreamTest, Seek_ImpossiblePosition_IsOutOfRange) {
  std::unique_ptr<BatchStream> stream = Open({.micro_batch_tokens = 64, .tokens_per_step = 128, .epochs = 1});
  ASSERT_NE(stream, nullptr);
  for (const BatchPosition& position :
       {BatchPosition{0, 0, 1, 1}, BatchPosition{0, 0, -1, 0}, BatchPosition{0, 0, 2000, 1000},
        BatchPosition{7, 0, 0, 3}, BatchPosition{0, 1, 0, 0}, BatchPosition{0, -1, 0, 0}}) {
    EXPECT_EQ(stream->Seek(position).code(), absl::StatusCode::kOutOfRange);
  }
}

// The lines are 90 to 96 bytes: so many blocks, of 640 bytes at first and 10,240 at most.
constexpr int64_t kSmallBlocks = 10 * 1024;

TEST_F(BatchStreamTest, ManyBlocks_EveryEpochTakesEverySampleOnce) {
  const DataFile file(Lines(1000));
  const BatchOptions options = {.samples = {.sources = {{.uri = file.uri()}}, .whole_bytes = kSmallBlocks},
                                .micro_batch_tokens = 64,
                                .tokens_per_step = 128,
                                .epochs = 2};
  absl::StatusOr<std::unique_ptr<BatchStream>> opened = BatchStream::Open(options, builder_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  BatchStream& stream = **opened;
  EXPECT_LT(stream.statistics().data_share, 0.02);
  std::map<int64_t, int> documents;  // by length
  int64_t steps = 0, blocks = 0;
  double done = 0;
  const int64_t first_estimate = stream.total_steps();
  for (std::vector<MicroBatch> step = Next(stream); !step.empty(); step = Next(stream)) {
    ++steps;
    EXPECT_EQ(stream.position().step, steps);
    EXPECT_GE(stream.total_steps(), steps);
    EXPECT_GE(stream.epochs_done(), done);
    done = stream.epochs_done();
    blocks = std::max(blocks, stream.position().block + 1);
    for (const MicroBatch& row : step) {
      for (size_t d = 0; d + 1 < row.document_starts.size(); ++d) {
        ++documents[row.document_starts[d + 1] - row.document_starts[d]];
      }
    }
  }
  EXPECT_GE(blocks, 10);
  EXPECT_EQ(stream.total_steps(), steps);
  EXPECT_NEAR(static_cast<double>(first_estimate), static_cast<double>(steps), 0.15 * steps);
  EXPECT_DOUBLE_EQ(stream.epochs_done(), 2);
  for (int length = 4; length <= 10; ++length) EXPECT_EQ(documents[length], 2 * (1000 / 7 + (length - 4 < 1000 % 7)));
}

TEST_F(BatchStreamTest, ManyBlocks_FractionOfAnEpoch_EndsThere) {
  const DataFile file(Lines(1000));
  const BatchOptions options = {.samples = {.sources = {{.uri = file.uri()}}, .whole_bytes = kSmallBlocks},
                                .micro_batch_tokens = 64,
                                .tokens_per_step = 64,
                                .epochs = 0.5};
  absl::StatusOr<std::unique_ptr<BatchStream>> stream = BatchStream::Open(options, builder_);
  ASSERT_TRUE(stream.ok()) << stream.status();
  int64_t tokens = 0;
  for (std::vector<MicroBatch> step = Next(**stream); !step.empty(); step = Next(**stream))
    tokens += step[0].num_tokens();
  EXPECT_NEAR(static_cast<double>(tokens), 0.5 * 1000 * 7, 200);
}

TEST_F(BatchStreamTest, ManyBlocks_Seek_GoesOnAsIfNeverStopped) {
  const DataFile file(Lines(400));
  const BatchOptions options = {.samples = {.sources = {{.uri = file.uri()}}, .whole_bytes = kSmallBlocks},
                                .micro_batch_tokens = 64,
                                .tokens_per_step = 128,
                                .epochs = 1.5,
                                .seed = 3};
  absl::StatusOr<std::unique_ptr<BatchStream>> stream = BatchStream::Open(options, builder_);
  ASSERT_TRUE(stream.ok()) << stream.status();
  std::vector<BatchPosition> positions;
  std::vector<std::vector<int64_t>> steps;
  std::vector<int64_t> totals;
  do {
    positions.push_back((*stream)->position());
    totals.push_back((*stream)->total_steps());
    steps.push_back(Tokens(Next(**stream)));
  } while (!steps.back().empty());
  absl::StatusOr<std::unique_ptr<BatchStream>> resumed = BatchStream::Open(options, builder_);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  for (size_t i = positions.size(); i-- > 0;) {
    const absl::Status sought = (*resumed)->Seek(positions[i]);
    ASSERT_TRUE(sought.ok()) << sought;
    EXPECT_EQ((*resumed)->total_steps(), totals[i]) << i;  // the learning rate depends on it
    EXPECT_EQ(Tokens(Next(**resumed)), steps[i]) << i;
    if (i + 1 < positions.size()) {
      EXPECT_EQ(Tokens(Next(**resumed)), steps[i + 1]) << i;
    }
  }
  EXPECT_EQ((*resumed)->Seek({0, 100, 0, 0}).code(), absl::StatusCode::kOutOfRange);
}

TEST_F(BatchStreamTest, ManyBlocks_ABadLineLate_IsAnErrorThen) {
  const DataFile file(Lines(1000) + "{\n");
  const BatchOptions options = {.samples = {.sources = {{.uri = file.uri()}}, .whole_bytes = kSmallBlocks},
                                .micro_batch_tokens = 64,
                                .tokens_per_step = 64,
                                .epochs = 1};
  absl::StatusOr<std::unique_ptr<BatchStream>> stream = BatchStream::Open(options, builder_);
  ASSERT_TRUE(stream.ok()) << stream.status();
  absl::StatusOr<std::vector<MicroBatch>> step = (*stream)->NextStep();
  int steps = 0;
  for (; step.ok() && !step->empty(); step = (*stream)->NextStep()) ++steps;
  EXPECT_GT(steps, 20);
  EXPECT_THAT(std::string(step.status().message()), HasSubstr("data.jsonl, line 1001: not valid JSON"));
}

// Samples of one source have one length.
TEST_F(BatchStreamTest, Weights_SayHowOftenAnEpochTakesASample) {
  const auto lines = [](int count, int length) {
    std::string text;
    for (int i = 0; i < count; ++i) text += R"({"text": ")" + std::string(length, 'x') + "\"}\n";
    return text;
  };
  const DataFile once(lines(30, 2), "a.jsonl"), often(lines(20, 4), "b.jsonl"), half(lines(40, 6), "c.jsonl"),
      never(lines(10, 8), "d.jsonl");
  const BatchOptions options = {.samples = {.sources = {{.uri = once.uri()},
                                                        {.uri = often.uri(), .weight = 3},
                                                        {.uri = half.uri(), .weight = 0.5},
                                                        {.uri = never.uri(), .weight = 0}}},
                                .micro_batch_tokens = 32,
                                .tokens_per_step = 32,
                                .epochs = 2};
  absl::StatusOr<std::unique_ptr<BatchStream>> stream = BatchStream::Open(options, builder_);
  ASSERT_TRUE(stream.ok()) << stream.status();
  std::map<int64_t, int> documents;  // by length, </s> included
  for (std::vector<MicroBatch> step = Next(**stream); !step.empty(); step = Next(**stream)) {
    const std::vector<int64_t>& starts = step[0].document_starts;
    for (size_t d = 0; d + 1 < starts.size(); ++d) ++documents[starts[d + 1] - starts[d]];
  }
  EXPECT_EQ(documents[3], 60);
  EXPECT_EQ(documents[5], 120);
  EXPECT_EQ(documents[7], 40);  // each once in two epochs
  EXPECT_EQ(documents[9], 0);
}

TEST_F(BatchStreamTest, Open_OptionsOutOfRange_AreInvalid) {
  const std::map<std::string, BatchOptions> cases = {
      {"exactly one of steps", {.steps = 0, .epochs = 0}},
      {"exactly one of steps (5) and epochs (1)", {.steps = 5, .epochs = 1}},
      {"micro_batch_tokens is 1", {.micro_batch_tokens = 1, .steps = 1}},
      {"tokens_per_step is 0", {.tokens_per_step = 0, .steps = 1}},
      {"max_sample_tokens is 1", {.samples = {.max_tokens = 1}, .steps = 1}},
      {"max_sample_tokens (3000) is more than micro_batch_tokens (2048)",
       {.samples = {.max_tokens = 3000}, .steps = 1}}};
  for (const auto& [message, options] : cases) {
    const absl::Status status = OpenStatus(options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
  BatchOptions nothing = {.samples = {.sources = {{.uri = file_.uri(), .weight = 0}}}, .steps = 1};
  EXPECT_THAT(std::string(BatchStream::Open(nothing, builder_).status().message()),
              HasSubstr("the weights of all data sources are 0"));
}

}  // namespace
}  // namespace temper
