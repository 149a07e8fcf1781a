// SPDX-License-Identifier: Apache-2.0
#include "worker/data/packed_row.h"

namespace temper {

namespace {

void Append(const SampleSet::Document& document, SampleSet::Scored what, MicroBatch& batch) {
  batch.document_starts.push_back(batch.num_tokens());
  const auto& [ids, scored] = document;
  for (size_t t = 0; t < ids.size(); ++t) {
    const bool last = t + 1 == ids.size();
    batch.tokens_T.push_back(ids[t]);
    batch.targets_T.push_back(last ? 0 : ids[t + 1]);
    batch.positions_T.push_back(static_cast<int64_t>(t));
    if (what == SampleSet::Scored::kToken) {
      batch.loss_mask_T.push_back(scored[t]);
    } else {
      batch.loss_mask_T.push_back(last ? 0 : scored[t + 1]);
    }
  }
}

}  // namespace

MicroBatch PackRow(const SampleSet& set, absl::Span<const int64_t> samples, int64_t capacity) {
  MicroBatch batch{.capacity = capacity};
  for (const int64_t sample : samples) {
    for (int i = 0; i < set.documents_per_sample(); ++i) Append(set.document(sample, i), set.what_is_scored(), batch);
    set.AppendTeacher(sample, batch.teacher);
  }
  batch.document_starts.push_back(batch.num_tokens());
  return batch;
}

}  // namespace temper
