// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "worker/model/lora.h"
#include "worker/model/parameter.h"
#include "worker/model/transformer.h"

namespace temper {

// How far a training is: all that is neither weight nor optimizer state.
struct TrainPosition {
  int64_t step = 0;          // optimizer steps taken
  int64_t total_tokens = 0;  // trained on so far
  int64_t data_epoch = 0;    // the next row of the data: rows given out of this pass over it
  int64_t data_row = 0;

  bool operator==(const TrainPosition&) const = default;
};

// AdamW's state of a trainable parameter, of the parameter's shape, fp32.
struct Moments {
  Parameter* parameter = nullptr;
  at::Tensor first;
  at::Tensor second;
};

// A copy of all that training changes, so that it can be written while training goes on. Frozen weights are shared with
// the model, which must outlive the snapshot.
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
  std::vector<Moments> moments;      // into `parameters` or `adapters`
  at::Tensor rng_state;              // torch's default generator
  int64_t bytes = 0;                 // that were copied
};

// Copies. Throws c10::Error when there is no memory for it.
TrainSnapshot TakeSnapshot(const Transformer& model, std::span<const Moments> moments, const TrainPosition& position);

}  // namespace temper
