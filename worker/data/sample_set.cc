// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_set.h"

namespace temper {

void SampleSet::Add(const Example& example, int source, int64_t ordinal) {
  ids_.insert(ids_.end(), example.ids.begin(), example.ids.end());
  scored_.insert(scored_.end(), example.scored.begin(), example.scored.end());
  begins_.push_back(static_cast<int64_t>(ids_.size()));
  origins_.push_back({ordinal, source});
}

}  // namespace temper
