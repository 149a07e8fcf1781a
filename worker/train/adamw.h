// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/checkpoint/train_snapshot.h"
#include "worker/model/parameter.h"
#include "worker/train/train_job.h"

namespace temper {

// AdamW over a model's trainable parameters. Norms and biases are not decayed. Moments are fp32.
class AdamW {
 public:
  // `parameters` are the model's, which must outlive this.
  AdamW(const std::vector<Parameter*>& parameters, const AdamWOptions& options);

  // Updates every master weight from its gradient buffer, each gradient multiplied by `gradient_scale` first.
  void Step(double learning_rate, double gradient_scale);

  // The state of each trainable parameter, for checkpoints: what is written into the tensors is the new state.
  const std::vector<Moments>& moments() const { return moments_; }
  // Steps that were taken, which the bias correction depends on.
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  AdamWOptions options_;
  std::vector<Moments> moments_;
  int64_t steps_ = 0;
};

}  // namespace temper
