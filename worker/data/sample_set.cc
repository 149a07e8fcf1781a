// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_set.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/data/conversation.h"
#include "worker/data/jsonl_reader.h"

namespace temper {
namespace {

// Lines that are tokenised between two reads of the file.
constexpr size_t kLinesAtOnce = 1024;

absl::StatusOr<ChatExample> BuildLine(const JsonlReader& reader, const JsonLine& line,
                                      const ChatExampleBuilder& builder) {
  const std::string where = reader.Where(line.number);
  absl::StatusOr<Conversation> conversation = ParseConversation(line.text, where);
  if (!conversation.ok()) return conversation.status();
  absl::StatusOr<ChatExample> example = builder.Build(*conversation);
  if (example.ok()) return example;
  return absl::Status(example.status().code(), absl::StrCat(where, ": ", example.status().message()));
}

// The examples of `lines`, in their order.
std::vector<absl::StatusOr<ChatExample>> BuildAll(const JsonlReader& reader, const std::vector<JsonLine>& lines,
                                                  const ChatExampleBuilder& builder, int threads) {
  std::vector<absl::StatusOr<ChatExample>> examples(lines.size(), absl::UnknownError("not built"));
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < lines.size(); i = next++) examples[i] = BuildLine(reader, lines[i], builder);
  };
  std::vector<std::jthread> others;
  for (int i = 1; i < threads && static_cast<size_t>(i) < lines.size(); ++i) others.emplace_back(work);
  work();
  others.clear();  // joins
  return examples;
}

absl::StatusOr<std::vector<JsonLine>> ReadLines(JsonlReader& reader) {
  std::vector<JsonLine> lines;
  while (lines.size() < kLinesAtOnce) {
    absl::StatusOr<std::optional<JsonLine>> line = reader.Next();
    if (!line.ok()) return line.status();
    if (!line->has_value()) break;
    lines.push_back(**std::move(line));
  }
  return lines;
}

// Scored tokens that have a token before them, from which they are predicted.
int64_t CountTargets(const std::vector<uint8_t>& scored) {
  return scored.empty() ? 0 : std::count(scored.begin() + 1, scored.end(), 1);
}

}  // namespace

void SampleSet::Add(ChatExample example, const SampleOptions& options) {
  const bool overlong = static_cast<int64_t>(example.ids.size()) > options.max_tokens;
  if (overlong) {
    example.ids.resize(options.max_tokens);
    example.scored.resize(options.max_tokens);
  }
  const int64_t targets = CountTargets(example.scored);
  if (overlong && (options.overlong == OverlongSamples::kDrop || targets == 0)) {
    ++statistics_.dropped_overlong;
    return;
  }
  ++statistics_.kept;
  statistics_.truncated += overlong;
  statistics_.tokens += example.ids.size();
  statistics_.scored_tokens += targets;
  ids_.insert(ids_.end(), example.ids.begin(), example.ids.end());
  scored_.insert(scored_.end(), example.scored.begin(), example.scored.end());
  begins_.push_back(ids_.size());
}

absl::StatusOr<SampleSet> SampleSet::Read(const SampleOptions& options, const ChatExampleBuilder& builder) {
  absl::StatusOr<JsonlReader> reader = JsonlReader::Open(options.uri);
  if (!reader.ok()) return reader.status();
  SampleSet samples;
  SampleStatistics& statistics = samples.statistics_;
  while (true) {
    if (options.stop != nullptr && *options.stop) return absl::CancelledError("stopped while reading the data");
    absl::StatusOr<std::vector<JsonLine>> lines = ReadLines(*reader);
    if (!lines.ok()) return lines.status();
    if (lines->empty()) break;
    for (absl::StatusOr<ChatExample>& example : BuildAll(*reader, *lines, builder, options.threads)) {
      ++statistics.read;
      if (example.ok()) {
        samples.Add(*std::move(example), options);
      } else if (absl::IsFailedPrecondition(example.status())) {
        if (statistics.refused++ == 0) statistics.first_refusal = std::string(example.status().message());
      } else {
        return example.status();
      }
    }
  }
  if (statistics.read == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the data file ", options.uri, " is empty: it must have a sample {\"messages\": […]} a line"));
  }
  if (statistics.kept == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "none of the ", statistics.read, " samples in ", options.uri, " can be trained on: ", statistics.refused,
        " without a sound loss mask, ", statistics.dropped_overlong, " too long for ", options.max_tokens, " tokens",
        statistics.refused > 0 ? absl::StrCat(". The first: ", statistics.first_refusal)
                               : ". Raise max_sample_tokens"));
  }
  return samples;
}

}  // namespace temper
