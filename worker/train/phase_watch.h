// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "worker/ops/synchronize.h"
#include "worker/train/gang.h"
#include "worker/train/stopwatch.h"
#include "worker/train/train_job.h"

namespace temper {

// Says what the time of a step went to, lap by lap. What a lap has waited for other ranks is communication, whatever it
// was for.
class PhaseWatch {
 public:
  // The first lap begins. Both must outlive it. A lap ends when `device` has done what it was given.
  PhaseWatch(const Gang& gang, at::Device device, StepPhases& phases)
      : gang_(gang), device_(device), phases_(phases), waited_(gang.seconds_waited()) {}

  // Ends the lap, which was spent on `phase`: Lap(&StepPhases::forward).
  void Lap(double StepPhases::* phase) { phases_.*phase += EndLap(); }
  // Ends the lap, which is no phase's: StepPhases::other is what is left in the end.
  void Skip() { EndLap(); }

 private:
  double EndLap() {
    ops::Synchronize(device_);
    const double waited = gang_.seconds_waited() - waited_;
    waited_ += waited;
    phases_.communication += waited;
    return std::max(0.0, watch_.Lap() - waited);
  }

  const Gang& gang_;
  const at::Device device_;
  StepPhases& phases_;
  Stopwatch watch_;
  double waited_;
};

}  // namespace temper
