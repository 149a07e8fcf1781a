// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper {

// Where a model's weights are while nobody computes with them, when that is not in the model. The step says what it is
// about to do, unit by unit; every rank says the same in the same order, for a unit is brought together by all of them
// at once.
//
// Unit 0 is the first block; kEnds are the embedding, the final norm and the head, which are one unit.
class UnitWeights {
 public:
  static constexpr int kEnds = -1;
  static constexpr int kNone = -2;

  virtual ~UnitWeights() = default;

  // The unit's weights are about to be computed with, and those of `next` after them (kNone: of no other unit).
  virtual void Gather(int unit, int next) = 0;
  // The unit's weights are done with. `again`: its backward pass is still to come.
  virtual void Release(int unit, bool again) = 0;
  // The unit's gradients are about to be added to, from zero.
  virtual void BeginGradients(int unit) = 0;
  // The unit's gradients are complete. With those of the ends, which are the last, those of all units are.
  virtual void EndGradients(int unit) = 0;
  // What was written into the gathered weights, fp32 ones, is their value from now on.
  virtual void Keep(int unit) = 0;
};

// A unit's weights are in the model as long as this lives. `weights` may be null: they always are.
class GatheredUnit {
 public:
  GatheredUnit(UnitWeights* weights, int unit) : weights_(weights), unit_(unit) {
    if (weights_ != nullptr) weights_->Gather(unit_, UnitWeights::kNone);
  }
  ~GatheredUnit() {
    if (weights_ != nullptr) weights_->Release(unit_, /*again=*/false);
  }
  GatheredUnit(const GatheredUnit&) = delete;
  GatheredUnit& operator=(const GatheredUnit&) = delete;

  void Keep() {
    if (weights_ != nullptr) weights_->Keep(unit_);
  }

 private:
  UnitWeights* const weights_;
  const int unit_;
};

}  // namespace temper
