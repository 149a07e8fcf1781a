// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper {

// worker/train/preference_objective.h has the formulas.
enum class PreferenceLoss { kSigmoid, kIpo, kHinge, kSimPo, kOrpo };

struct PreferenceOptions {
  PreferenceLoss loss = PreferenceLoss::kSigmoid;
  double beta = 0.1;
  double label_smoothing = 0;      // kSigmoid and kSimPo
  bool length_normalized = false;  // kSigmoid and kHinge; the others always are
  double margin = 0;               // kSimPo
};

// Of losses that compare the model with what it was.
inline bool NeedsReference(PreferenceLoss loss) {
  return loss != PreferenceLoss::kSimPo && loss != PreferenceLoss::kOrpo;
}

}  // namespace temper
