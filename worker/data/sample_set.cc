// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_set.h"

namespace temper {

void SampleSet::Add(absl::Span<const Example> documents, int source, int64_t ordinal) {
  for (const Example& document : documents) {
    ids_.insert(ids_.end(), document.ids.begin(), document.ids.end());
    scored_.insert(scored_.end(), document.scored.begin(), document.scored.end());
    begins_.push_back(static_cast<int64_t>(ids_.size()));
    teacher_.Append(document.teacher, 0, document.teacher.rows());
  }
  teacher_begins_.push_back(teacher_.rows());
  origins_.push_back({ordinal, source});
}

}  // namespace temper
