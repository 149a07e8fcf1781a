// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/data/example.h"
#include "worker/data/sample_builder.h"

namespace temper {

enum class OverlongSamples { kTruncate, kDrop };

struct SampleOptions {
  std::string uri;  // of a JSONL file
  ColumnNames columns;
  int64_t max_tokens = 0;
  OverlongSamples overlong = OverlongSamples::kTruncate;
  int threads = 1;
  const std::atomic<bool>* stop = nullptr;  // becomes true: CANCELLED
};

// What became of the lines of the data file.
struct SampleStatistics {
  int64_t read = 0;
  int64_t kept = 0;
  int64_t truncated = 0;         // of those kept
  int64_t dropped_overlong = 0;  // longer than max_tokens; or truncated, and no scored token was left
  int64_t refused = 0;           // no sound loss mask (SampleBuilder::Build)
  std::string first_refusal;     // "URI, line N: reason"
  int64_t tokens = 0;            // of the kept samples
  int64_t scored_tokens = 0;     // tokens that the loss looks at
};

// The tokenised samples, in the order of the file. About five bytes a token.
class SampleSet {
 public:
  // Reads and tokenises with several threads; the result does not depend on their number.
  //   INVALID_ARGUMENT  a line is no sample, is of another form than the first, cannot be trained on as was asked,
  //                     or the template refuses it (the first such line is named); the file is empty, or no sample has
  //                     a scored token
  //   NOT_FOUND, …      the file cannot be read (JsonlReader::Open)
  static absl::StatusOr<SampleSet> Read(const SampleOptions& options, const SampleBuilder& builder);

  int64_t size() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t length(int64_t sample) const { return begins_[sample + 1] - begins_[sample]; }
  absl::Span<const uint32_t> ids(int64_t sample) const {
    return absl::MakeConstSpan(ids_).subspan(begins_[sample], length(sample));
  }
  absl::Span<const uint8_t> scored(int64_t sample) const {
    return absl::MakeConstSpan(scored_).subspan(begins_[sample], length(sample));
  }
  const SampleStatistics& statistics() const { return statistics_; }

 private:
  // Keeps the example, shortened if need be, or counts why not.
  void Add(Example example, const SampleOptions& options);
  // Adds what was built, or counts that it was refused. Returns errors that end the reading.
  absl::Status Take(absl::StatusOr<Example> example, const SampleOptions& options);

  std::vector<int64_t> begins_ = {0};
  std::vector<uint32_t> ids_;
  std::vector<uint8_t> scored_;
  SampleStatistics statistics_;
};

}  // namespace temper
