// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_reader.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/counted.h"
#include "worker/data/json_line.h"
#include "worker/data/preference_pair.h"

namespace temper {
namespace {

constexpr size_t kRecordsAtOnce = 1024;   // that are tokenised between two looks at `stop`
constexpr int64_t kFirstBlockShare = 16;  // the first block has so large a part of the largest

// A record's tokens, and what form it had.
struct BuiltSample {
  absl::StatusOr<std::vector<Example>> documents = absl::UnknownError("not built");
  std::optional<SampleForm> form;  // absent when the record was not understood
};

// Scored tokens that have a token before them, from which they are predicted.
int64_t CountTargets(const std::vector<uint8_t>& scored) {
  return scored.empty() ? 0 : std::count(scored.begin() + 1, scored.end(), 1);
}

absl::Status Annotate(const absl::Status& status, const std::string& where) {
  return absl::Status(status.code(), absl::StrCat(where, ": ", status.message()));
}

// An answer with its prompt, of which no token is asked where the one ends and the other begins.
Sample Whole(Sample answer) {
  if (answer.form != SampleForm::kPromptCompletion) return answer;
  return {.form = SampleForm::kText, .text = answer.prompt + answer.text};
}

void ScoreEnd(int64_t padding, Example& document) {
  size_t end = document.ids.size() - 1;
  while (end > 0 && document.ids[end] == padding) --end;
  document.scored.assign(document.ids.size(), 0);
  document.scored[end] = 1;
}

absl::StatusOr<std::vector<Example>> BuildPair(const PreferencePair& pair, const SampleBuilder& builder) {
  absl::StatusOr<Example> chosen = builder.Build(pair.chosen);
  if (!chosen.ok()) return Annotate(chosen.status(), "chosen");
  absl::StatusOr<Example> rejected = builder.Build(pair.rejected);
  if (!rejected.ok()) return Annotate(rejected.status(), "rejected");
  if (CountTargets(chosen->scored) == 0 || CountTargets(rejected->scored) == 0) {
    return absl::FailedPreconditionError("an answer has no token that is predicted from one before it");
  }
  if (chosen->ids == rejected->ids) {
    return absl::FailedPreconditionError("the chosen answer and the rejected one are the same");
  }
  return std::vector<Example>{*std::move(chosen), *std::move(rejected)};
}

BuiltSample BuildPair(const SourceRecord& record, const ColumnNames& columns, bool whole,
                      const SampleBuilder& builder) {
  absl::StatusOr<PreferencePair> pair = ParsePreferencePair(record.record.text, columns, record.Where());
  if (!pair.ok()) return {.documents = pair.status()};
  const SampleForm form = pair->chosen.form;
  if (whole) *pair = {Whole(std::move(pair->chosen)), Whole(std::move(pair->rejected))};
  return {.documents = BuildPair(*pair, builder), .form = form};
}

// A row for each token that is learned.
absl::Status CheckRows(const TeacherTokens& teacher, const Example& example) {
  const int64_t targets = CountTargets(example.scored);
  if (teacher.rows() == targets) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("teacher_tokens and teacher_logprobs have ", Counted(teacher.rows(), "list"), ", but ",
                   Counted(targets, "token"), " of the sample ", targets == 1 ? "is" : "are",
                   " learned: give one for each, of what the teacher says in its place; `temper preflight` shows which "
                   "they are"));
}

BuiltSample BuildSample(const SourceRecord& record, const ColumnNames& columns, const SampleBuilder& builder,
                        int64_t teacher_vocab) {
  absl::StatusOr<Sample> sample = ParseSample(record.record.text, columns, record.Where(), teacher_vocab);
  if (!sample.ok()) return {.documents = sample.status()};
  absl::StatusOr<Example> example = builder.Build(*sample);
  if (!example.ok()) return {.documents = example.status(), .form = sample->form};
  if (teacher_vocab > 0) {
    const absl::Status checked = CheckRows(sample->teacher, *example);
    if (!checked.ok()) return {.documents = checked, .form = sample->form};
    example->teacher = std::move(sample->teacher);
  }
  return {.documents = std::vector<Example>{*std::move(example)}, .form = sample->form};
}

int64_t BytesOf(const SourceRecord& record) { return static_cast<int64_t>(record.record.text.size()); }

}  // namespace

SampleReader::SampleReader(const SampleOptions& options, const SampleBuilder& builder, RecordStream records)
    : options_(options), builder_(builder), records_(std::move(records)) {}

absl::StatusOr<std::unique_ptr<SampleReader>> SampleReader::Open(const SampleOptions& options,
                                                                 const SampleBuilder& builder) {
  absl::StatusOr<RecordStream> records = RecordStream::Open(options.sources, options.split);
  if (!records.ok()) return records.status();
  auto reader = std::unique_ptr<SampleReader>(new SampleReader(options, builder, *std::move(records)));
  // One record more than fits says that not all fits.
  const absl::Status read = reader->ReadAhead(options.whole_bytes + 1);
  if (!read.ok()) return read;
  reader->whole_ = reader->ended_ && reader->ahead_bytes_ <= options.whole_bytes;
  reader->block_bytes_ = reader->whole_ ? options.whole_bytes : options.whole_bytes / kFirstBlockShare;
  return reader;
}

absl::Status SampleReader::ReadAhead(int64_t bytes) {
  while (!ended_ && ahead_bytes_ < bytes) {
    if (Stopped()) return absl::CancelledError("stopped while reading the data");
    absl::StatusOr<std::optional<SourceRecord>> record = records_.Next();
    if (!record.ok()) return record.status();
    if (!record->has_value()) {
      ended_ = true;
      break;
    }
    ahead_bytes_ += BytesOf(**record);
    ahead_.push_back(**std::move(record));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SourceRecord>> SampleReader::NextRecords() {
  const absl::Status read = ReadAhead(block_bytes_);
  if (!read.ok()) return read;
  std::vector<SourceRecord> block;
  int64_t bytes = 0;
  while (!ahead_.empty() && bytes < block_bytes_) {
    bytes += BytesOf(ahead_.front());
    block.push_back(std::move(ahead_.front()));
    ahead_.pop_front();
  }
  ahead_bytes_ -= bytes;
  given_bytes_ += bytes;
  block_bytes_ = std::min(options_.whole_bytes, 2 * block_bytes_);
  // So that the last block is known to be it.
  if (const absl::Status more = ReadAhead(1); !more.ok()) return more;
  return block;
}

absl::StatusOr<std::optional<SampleSet>> SampleReader::Next(int threads) {
  const absl::StatusOr<std::vector<SourceRecord>> records = NextRecords();
  if (!records.ok()) return records.status();
  if (records->empty()) {
    if (statistics_.kept == 0 && skipped_ == 0) return NothingKept();
    return std::nullopt;
  }
  SampleSet samples(options_.pairs ? 2 : 1,
                    options_.scored_at_end ? SampleSet::Scored::kToken : SampleSet::Scored::kPrediction);
  const absl::Status taken = Take(*records, threads, samples);
  if (!taken.ok()) return taken;
  if (whole_ && samples.size() == 0) return NothingKept();
  return samples;
}

absl::Status SampleReader::Skip(int64_t blocks) {
  for (int64_t i = 0; i < blocks; ++i) {
    const absl::StatusOr<std::vector<SourceRecord>> records = NextRecords();
    if (!records.ok()) return records.status();
    if (records->empty()) return absl::OutOfRangeError("the data has fewer blocks");
    skipped_ += static_cast<int64_t>(records->size());
  }
  return absl::OkStatus();
}

absl::Status SampleReader::Take(const std::vector<SourceRecord>& records, int threads, SampleSet& samples) {
  for (size_t begin = 0; begin < records.size(); begin += kRecordsAtOnce) {
    if (Stopped()) return absl::CancelledError("stopped while reading the data");
    const size_t count = std::min(kRecordsAtOnce, records.size() - begin);
    std::vector<BuiltSample> built(count);
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t i = next++; i < count; i = next++) {
        const SourceRecord& record = records[begin + i];
        const ColumnNames& columns = options_.sources[record.source].columns;
        built[i] = options_.pairs ? BuildPair(record, columns, options_.scored_at_end.has_value(), builder_)
                                  : BuildSample(record, columns, builder_, options_.teacher_vocab);
        if (built[i].form.has_value() && !built[i].documents.ok()) {
          built[i].documents = Annotate(built[i].documents.status(), record.Where());
        }
      }
    };
    std::vector<std::jthread> others;
    for (int i = 1; i < threads && static_cast<size_t>(i) < count; ++i) others.emplace_back(work);
    work();
    others.clear();  // joins
    for (size_t i = 0; i < count; ++i) {
      const SourceRecord& record = records[begin + i];
      if (built[i].form.has_value()) {
        const absl::Status same = CheckForm(*built[i].form, record);
        if (!same.ok()) return same;
      }
      absl::StatusOr<std::vector<Example>>& documents = built[i].documents;
      if (documents.ok()) {
        Add(*std::move(documents), record, samples);
      } else if (absl::IsFailedPrecondition(documents.status())) {
        if (statistics_.refused++ == 0) statistics_.first_refusal = std::string(documents.status().message());
      } else {
        return documents.status();
      }
      ++statistics_.read;
    }
  }
  return absl::OkStatus();
}

// All samples are of one form: what is scored, and what a loss means, would differ within a batch.
absl::Status SampleReader::CheckForm(SampleForm form, const SourceRecord& record) {
  if (!form_.has_value()) {
    form_ = form;
    form_where_ = record.Where();
  }
  if (form == *form_) return absl::OkStatus();
  const auto describe = [this](SampleForm each) { return options_.pairs ? DescribePair(each) : Describe(each); };
  return InvalidSample(record.Where(), absl::StrCat("this sample is ", describe(form), ", but the one in ", form_where_,
                                                    " is ", describe(*form_), "; all must have the same form"));
}

void SampleReader::Add(std::vector<Example> documents, const SourceRecord& record, SampleSet& samples) {
  bool overlong = false, nothing_left = false;
  int64_t tokens = 0, targets = 0;
  for (Example& document : documents) {
    if (static_cast<int64_t>(document.ids.size()) > options_.max_tokens) {
      overlong = true;
      document.ids.resize(options_.max_tokens);
      document.scored.resize(options_.max_tokens);
    }
    if (options_.scored_at_end) ScoreEnd(*options_.scored_at_end, document);
    const int64_t its_targets = CountTargets(document.scored);
    if (options_.teacher_vocab > 0) document.teacher.Truncate(its_targets);
    nothing_left = nothing_left || its_targets == 0;
    targets += its_targets;
    tokens += static_cast<int64_t>(document.ids.size());
  }
  // Of a pair, what sets the answers apart may have gone.
  if (options_.pairs) nothing_left = nothing_left || documents[0].ids == documents[1].ids;
  if (overlong && (options_.overlong == OverlongSamples::kDrop || nothing_left)) {
    ++statistics_.dropped_overlong;
    return;
  }
  ++statistics_.kept;
  statistics_.truncated += overlong;
  statistics_.tokens += tokens;
  statistics_.scored_tokens += targets;
  samples.Add(documents, record.source, record.ordinal);
}

absl::Status SampleReader::NothingKept() const {
  const std::string uris = absl::StrJoin(
      options_.sources, ", ", [](std::string* out, const DataSource& source) { absl::StrAppend(out, source.uri); });
  if (statistics_.read == 0) {
    if (options_.split.part != RecordSplit::Part::kAll) {
      return absl::InvalidArgumentError(absl::StrCat("the data ", uris, " has too few samples to be split: ",
                                                     options_.split.part == RecordSplit::Part::kHeldOut
                                                         ? "none is left for validation"
                                                         : "none is left to train on",
                                                     ". Correct data.validation.share, or give data.validation.uri"));
    }
    return absl::InvalidArgumentError(
        absl::StrCat("the data ", uris, " is empty: it must have a sample a line, like ",
                     options_.pairs ? "{\"prompt\": …, \"chosen\": …, \"rejected\": …}" : "{\"messages\": […]}"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "none of ", Counted(statistics_.read, "sample"), " in ", uris, " can be trained on: ", statistics_.refused,
      " without a sound loss mask, ", statistics_.dropped_overlong, " too long for ", options_.max_tokens, " tokens",
      statistics_.refused > 0 ? absl::StrCat(". The first: ", statistics_.first_refusal)
                              : ". Raise max_sample_tokens"));
}

double SampleReader::fraction_read() const {
  if (ended_ && ahead_.empty()) return 1;
  // Of what has been read, a part is still ahead.
  const double read = static_cast<double>(given_bytes_ + ahead_bytes_);
  return read == 0 ? 1.0 : records_.fraction_read() * static_cast<double>(given_bytes_) / read;
}

}  // namespace temper
