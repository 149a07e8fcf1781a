// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/data/example.h"

namespace temper {

// Tokenised samples, each of which is one document, or, of pairs, two: the chosen answer and the rejected one. About
// five bytes a token, and what a teacher has said.
class SampleSet {
 public:
  // What is scored where a token is marked.
  enum class Scored {
    kPrediction,  // the token, as it is predicted from those before it
    kToken,       // what the model makes of the document up to the token
  };
  struct Document {
    absl::Span<const uint32_t> ids;
    absl::Span<const uint8_t> scored;
  };

  explicit SampleSet(int documents_per_sample = 1, Scored what = Scored::kPrediction)
      : documents_per_sample_(documents_per_sample), what_(what) {}

  // A sample's documents. `source` and `ordinal` as SourceRecord has them.
  void Add(absl::Span<const Example> documents, int source, int64_t ordinal);

  int64_t size() const { return static_cast<int64_t>(origins_.size()); }
  int documents_per_sample() const { return documents_per_sample_; }
  Scored what_is_scored() const { return what_; }
  Document document(int64_t sample, int document) const {
    const int64_t index = sample * documents_per_sample_ + document;
    return Between(begins_[index], begins_[index + 1]);
  }

  // Of all of a sample's documents, one after another.
  int64_t length(int64_t sample) const {
    return begins_[(sample + 1) * documents_per_sample_] - begins_[sample * documents_per_sample_];
  }
  absl::Span<const uint32_t> ids(int64_t sample) const { return Whole(sample).ids; }
  absl::Span<const uint8_t> scored(int64_t sample) const { return Whole(sample).scored; }

  // Adds the sample's rows, if it has brought any.
  void AppendTeacher(int64_t sample, TeacherTokens& to) const {
    to.Append(teacher_, teacher_begins_[sample], teacher_begins_[sample + 1]);
  }

  int source(int64_t sample) const { return origins_[sample].source; }
  int64_t ordinal(int64_t sample) const { return origins_[sample].ordinal; }

 private:
  struct Origin {
    int64_t ordinal;
    int source;
  };

  Document Between(int64_t begin, int64_t end) const {
    return {absl::MakeConstSpan(ids_).subspan(begin, end - begin),
            absl::MakeConstSpan(scored_).subspan(begin, end - begin)};
  }
  Document Whole(int64_t sample) const {
    const int64_t first = sample * documents_per_sample_;
    return Between(begins_[first], begins_[first + documents_per_sample_]);
  }

  int documents_per_sample_;
  Scored what_;
  std::vector<int64_t> begins_ = {0};          // of documents
  std::vector<int64_t> teacher_begins_ = {0};  // of samples' rows
  TeacherTokens teacher_;
  std::vector<uint32_t> ids_;
  std::vector<uint8_t> scored_;
  std::vector<Origin> origins_;
};

}  // namespace temper
