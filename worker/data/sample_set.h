// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/data/example.h"

namespace temper {

// Tokenised samples. About five bytes a token.
class SampleSet {
 public:
  // `source` and `ordinal` as SourceRecord has them.
  void Add(const Example& example, int source, int64_t ordinal);

  int64_t size() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t length(int64_t sample) const { return begins_[sample + 1] - begins_[sample]; }
  absl::Span<const uint32_t> ids(int64_t sample) const {
    return absl::MakeConstSpan(ids_).subspan(begins_[sample], length(sample));
  }
  absl::Span<const uint8_t> scored(int64_t sample) const {
    return absl::MakeConstSpan(scored_).subspan(begins_[sample], length(sample));
  }
  int source(int64_t sample) const { return origins_[sample].source; }
  int64_t ordinal(int64_t sample) const { return origins_[sample].ordinal; }

 private:
  struct Origin {
    int64_t ordinal;
    int source;
  };

  std::vector<int64_t> begins_ = {0};
  std::vector<uint32_t> ids_;
  std::vector<uint8_t> scored_;
  std::vector<Origin> origins_;
};

}  // namespace temper
