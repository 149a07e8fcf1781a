// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/data/micro_batch.h"
#include "worker/model/trainable_model.h"
#include "worker/train/objective.h"

namespace temper {

class PhaseWatch;

// Forward and backward of one micro-batch: adds every trainable parameter's gradient to its buffer and returns the
// micro-batch's share. `normalizer` is the step's (worker/train/objective.h). docs/ARCHITECTURE.md draws it. Where the
// objective needs a reference, another forward pass comes first, of the model without its adapters; or of its teacher.
//
// Ends two laps of `watch`, if given: forward passes of blocks are `forward`, the loss and all of the way back
// `backward`.
//
// A model whose weights are elsewhere in between (TrainableModel::unit_weights) has its gradients there in the end. Its
// ranks wait for each other: each must call this equally often, with an empty micro-batch if need be.
StepShare ForwardBackward(TrainableModel& model, const MicroBatch& batch, const Objective& objective, double normalizer,
                          PhaseWatch* watch = nullptr);

// The objective of one micro-batch, without any gradient. Ranks that share weights each call it equally often, as
// above.
StepShare Evaluate(TrainableModel& model, const MicroBatch& batch, const Objective& objective, double normalizer);

// Hidden states of the whole micro-batch, final norm included: [T, D]. Nothing is recorded.
at::Tensor ForwardHidden(TrainableModel& model, const MicroBatch& batch);

// Logits of the first positions, at most `rows`: fp32 [rows, V]. Nothing is recorded. Ranks that share weights each
// call it equally often, as above.
at::Tensor FirstLogits(TrainableModel& model, const MicroBatch& batch, int64_t rows);

// Log-probabilities of the targets that the loss looks at: [S], fp32. Nothing is recorded. Ranks that share weights
// each call it equally often, as above.
at::Tensor ScoredLogprobs(TrainableModel& model, const MicroBatch& batch);

}  // namespace temper
