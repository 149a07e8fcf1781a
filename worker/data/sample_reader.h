// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/data_source.h"
#include "worker/data/record_stream.h"
#include "worker/data/sample_builder.h"
#include "worker/data/sample_set.h"

namespace temper {

enum class OverlongSamples { kTruncate, kDrop };

struct SampleOptions {
  std::vector<DataSource> sources;
  RecordSplit split;
  bool pairs = false;  // records are pairs of answers (preference_pair.h), not samples
  // Of pairs: each answer is scored as a whole, at its last token other than this one (below 0: at its last one), as
  // HF's *ForSequenceClassification does. The builder trains on all tokens then.
  std::optional<int64_t> scored_at_end;
  int64_t teacher_vocab = 0;  // over 0: samples bring what a teacher has said, of ids below (teacher_fields.h)
  int64_t max_tokens = 0;     // of a document
  OverlongSamples overlong = OverlongSamples::kTruncate;
  // Data of more bytes (decompressed) than this comes in several blocks.
  int64_t whole_bytes = 32 << 20;
  std::function<bool()> stopped;  // asked now and then, when there is one; true: CANCELLED
};

// What became of the records.
struct SampleStatistics {
  int64_t read = 0;
  int64_t kept = 0;
  int64_t truncated = 0;         // of those kept
  int64_t dropped_overlong = 0;  // longer than max_tokens; or truncated, and no scored token was left
  int64_t refused = 0;           // no sound loss mask (SampleBuilder::Build), or two answers that are the same
  std::string first_refusal;     // "URI, line N: reason"
  int64_t tokens = 0;            // of the kept samples
  int64_t scored_tokens = 0;     // tokens that the loss looks at
};

// One pass over the data, tokenised, in blocks that are shuffled and packed each for itself. Data of at most
// `whole_bytes` is one block. More comes in blocks that begin small, so that training can begin at once, and grow up to
// `whole_bytes`: memory does not grow with the data. Where blocks end depends on the data and the options alone. One
// thread at a time.
class SampleReader {
 public:
  // The builder must outlive it. Errors as RecordStream::Open and Next.
  static absl::StatusOr<std::unique_ptr<SampleReader>> Open(const SampleOptions& options, const SampleBuilder& builder);

  // Whether the first block is everything.
  bool whole() const { return whole_; }

  // The next block, in the order of the records, tokenised by so many threads; the result does not depend on them.
  // Absent at the end; empty when none of its records is a sound sample.
  //   INVALID_ARGUMENT  a record is no sample, is of another form than the first, cannot be trained on as was asked,
  //                     or the template refuses it (the first such record is named); there is no record, or none with
  //                     a scored token
  //   otherwise         the data cannot be read (RecordStream)
  absl::StatusOr<std::optional<SampleSet>> Next(int threads);

  // Leaves out the next blocks, without tokenising them. OUT_OF_RANGE when there are not so many.
  absl::Status Skip(int64_t blocks);

  // The share of the data in the blocks so far, 0 to 1; and 1 after the last one.
  double fraction_read() const;

  // Of what Next() has given.
  const SampleStatistics& statistics() const { return statistics_; }

 private:
  SampleReader(const SampleOptions& options, const SampleBuilder& builder, RecordStream records);
  bool Stopped() const { return options_.stopped && options_.stopped(); }
  absl::Status ReadAhead(int64_t bytes);
  absl::StatusOr<std::vector<SourceRecord>> NextRecords();
  absl::Status Take(const std::vector<SourceRecord>& records, int threads, SampleSet& samples);
  absl::Status CheckForm(SampleForm form, const SourceRecord& record);
  void Add(std::vector<Example> documents, const SourceRecord& record, SampleSet& samples);
  absl::Status NothingKept() const;

  const SampleOptions options_;
  const SampleBuilder& builder_;
  RecordStream records_;
  std::deque<SourceRecord> ahead_;  // read, and in no block yet
  int64_t ahead_bytes_ = 0;
  bool ended_ = false;  // records_ has no more
  bool whole_ = false;
  int64_t block_bytes_ = 0;  // of the next block
  int64_t given_bytes_ = 0;  // of all blocks
  int64_t skipped_ = 0;      // records
  SampleStatistics statistics_;
  std::optional<SampleForm> form_;  // of the first sample, which all must have
  std::string form_where_;
};

}  // namespace temper
