// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_set.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/data/json_line.h"
#include "worker/data/jsonl_reader.h"

namespace temper {
namespace {

// Lines that are tokenised between two reads of the file.
constexpr size_t kLinesAtOnce = 1024;

// A line's tokens, and what form it had.
struct BuiltLine {
  absl::StatusOr<Example> example = absl::UnknownError("not built");
  std::optional<SampleForm> form;  // absent when the line was not understood
};

BuiltLine BuildLine(const JsonlReader& reader, const JsonLine& line, const ColumnNames& columns,
                    const SampleBuilder& builder) {
  const std::string where = reader.Where(line.number);
  absl::StatusOr<Sample> sample = ParseSample(line.text, columns, where);
  if (!sample.ok()) return {.example = sample.status()};
  BuiltLine built{.example = builder.Build(*sample), .form = sample->form};
  if (!built.example.ok()) {
    const absl::Status& status = built.example.status();
    built.example = absl::Status(status.code(), absl::StrCat(where, ": ", status.message()));
  }
  return built;
}

// In the order of `lines`.
std::vector<BuiltLine> BuildAll(const JsonlReader& reader, const std::vector<JsonLine>& lines,
                                const SampleOptions& options, const SampleBuilder& builder) {
  std::vector<BuiltLine> built(lines.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < lines.size(); i = next++) {
      built[i] = BuildLine(reader, lines[i], options.columns, builder);
    }
  };
  std::vector<std::jthread> others;
  for (int i = 1; i < options.threads && static_cast<size_t>(i) < lines.size(); ++i) others.emplace_back(work);
  work();
  others.clear();  // joins
  return built;
}

// All samples are of one form: what is scored, and what a loss means, would differ within a batch.
class FormCheck {
 public:
  absl::Status Add(SampleForm form, const std::string& where) {
    if (!first_.has_value()) {
      first_ = form;
      first_where_ = where;
    }
    if (form == *first_) return absl::OkStatus();
    return InvalidSample(where, absl::StrCat("this sample is ", Describe(form), ", but the one in ", first_where_,
                                             " is ", Describe(*first_), "; all must have the same form"));
  }

 private:
  std::optional<SampleForm> first_;
  std::string first_where_;
};

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

void SampleSet::Add(Example example, const SampleOptions& options) {
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

absl::Status SampleSet::Take(absl::StatusOr<Example> example, const SampleOptions& options) {
  if (example.ok()) {
    Add(*std::move(example), options);
  } else if (absl::IsFailedPrecondition(example.status())) {
    if (statistics_.refused++ == 0) statistics_.first_refusal = std::string(example.status().message());
  } else {
    return example.status();
  }
  ++statistics_.read;
  return absl::OkStatus();
}

absl::StatusOr<SampleSet> SampleSet::Read(const SampleOptions& options, const SampleBuilder& builder) {
  absl::StatusOr<JsonlReader> reader = JsonlReader::Open(options.uri);
  if (!reader.ok()) return reader.status();
  SampleSet samples;
  const SampleStatistics& statistics = samples.statistics_;
  FormCheck forms;
  while (true) {
    if (options.stop != nullptr && *options.stop) return absl::CancelledError("stopped while reading the data");
    absl::StatusOr<std::vector<JsonLine>> lines = ReadLines(*reader);
    if (!lines.ok()) return lines.status();
    if (lines->empty()) break;
    std::vector<BuiltLine> built = BuildAll(*reader, *lines, options, builder);
    for (size_t i = 0; i < built.size(); ++i) {
      absl::Status taken;
      if (built[i].form.has_value()) taken = forms.Add(*built[i].form, reader->Where((*lines)[i].number));
      if (taken.ok()) taken = samples.Take(std::move(built[i].example), options);
      if (!taken.ok()) return taken;
    }
  }
  if (statistics.read == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the data file ", options.uri, " is empty: it must have a sample a line, like {\"messages\": […]}"));
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
