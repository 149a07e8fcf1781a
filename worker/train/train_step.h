// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/data/micro_batch.h"
#include "worker/model/trainable_model.h"
#include "worker/train/objective.h"

namespace temper {

// Forward and backward of one micro-batch: adds every trainable parameter's gradient to its buffer and returns the
// micro-batch's share of the loss. `normalizer` is the step's (worker/train/objective.h). docs/ARCHITECTURE.md draws
// it.
double ForwardBackward(TrainableModel& model, const MicroBatch& batch, const Objective& objective, double normalizer);

// Hidden states of the whole micro-batch, final norm included: [T, D]. Nothing is recorded.
at::Tensor ForwardHidden(TrainableModel& model, const MicroBatch& batch);

}  // namespace temper
