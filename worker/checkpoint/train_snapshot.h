// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "worker/model/lora.h"
#include "worker/model/parameter.h"
#include "worker/model/trainable_model.h"

namespace temper {

// How far a training is: all that is neither weight nor optimizer state.
struct TrainPosition {
  int64_t step = 0;          // steps taken
  int64_t updates = 0;       // of them, those that changed weights
  int64_t total_tokens = 0;  // trained on so far
  double seconds = 0;        // spent in steps so far
  int64_t data_epoch = 0;    // the next row of the data: rows given out of this block of this pass over it
  int64_t data_block = 0;
  int64_t data_row = 0;
  int32_t skipped_in_a_row = 0;  // steps whose numbers were not finite
  // Validation: the step of the newest one, the step of the lowest one and its loss. Steps are 0 when there was none.
  int64_t validated_step = 0;
  int64_t best_step = 0;
  double best_loss = 0;
  // Early stop: the loss of the newest validation that was an improvement, and how many came after it.
  double improved_loss = 0;
  int32_t validations_since_improvement = 0;
  // Of the newest good steps, for the detection of spikes: oldest first.
  std::vector<double> recent_losses;
  std::vector<double> recent_norms;

  bool operator==(const TrainPosition&) const = default;
};

// AdamW's state of a trainable parameter, or of what a rank has of it, of the parameter's shape, fp32.
struct Moments {
  Parameter* parameter = nullptr;
  at::Tensor first;
  at::Tensor second;
};

// A copy of all that training changes, so that it can be written while training goes on. Frozen weights are shared with
// the model, which must outlive the snapshot. Where ranks share the model, each has a snapshot of what it has.
//
// Its parts point at each other: it can be moved, not copied.
struct TrainSnapshot {
  TrainSnapshot() = default;
  TrainSnapshot(TrainSnapshot&&) = default;
  TrainSnapshot& operator=(TrainSnapshot&&) = default;

  TrainPosition position;
  std::deque<Parameter> parameters;  // those of the model, without gradients
  std::vector<WeightView> views;     // of the base model, into `parameters`
  std::deque<LoraAdapter> adapters;  // the model's, in its order
  std::deque<ShardSlice> slices;     // of `parameters` and `adapters`, where ranks share them
  std::vector<Moments> moments;      // into `parameters`, `adapters` or `slices`
  at::Tensor rng_state;              // torch's default generator
  std::vector<std::string> unheard;  // JSON objects, to be kept as they are: what is still to be told of the steps
  int64_t bytes = 0;                 // that were copied
};

// Copies. Throws c10::Error when there is no memory for it.
TrainSnapshot TakeSnapshot(const TrainableModel& model, std::span<const Moments> moments,
                           const TrainPosition& position);

}  // namespace temper
