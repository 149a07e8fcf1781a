// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/model/lm_head.h"
#include "worker/model/lora.h"
#include "worker/model/parameter.h"
#include "worker/model/recompute.h"
#include "worker/model/unit_weights.h"
#include "worker/ops/rope.h"

namespace temper {

// A micro-batch as tensors on the model's device, and what all units need of it.
struct BatchContext {
  at::Tensor tokens_T;     // int64
  at::Tensor positions_T;  // int64, from 0 in each document
  std::vector<int64_t> document_starts;
  std::vector<ops::RopeTable> ropes;  // as ModelConfig::ropes
};

// How a unit's mixture of experts gave out its tokens; undefined where there is none, or no loss for it.
struct Routing {
  at::Tensor probabilities_TE;  // fp32, recorded by autograd: the router's softmax over all experts
  at::Tensor tokens_E;          // int64: how many chose each expert
};

// FLOPs of forward and backward, by the rule in docs/ARCHITECTURE.md ("MFU").
struct FlopRates {
  bool known = true;  // false: nobody has counted them
  double per_token = 0;
  double per_scored_token = 0;  // the LM head
  // Of them, those of a forward pass in which adapters are left away.
  double forward_per_token = 0;
  double forward_per_scored_token = 0;
  // What backward computes a second time: in HFU, not in MFU.
  double recomputed_per_token = 0;
  // Attention, of layers with the same window (0: none).
  struct Attention {
    int64_t window = 0;
    double per_pair = 0;  // a query and a key that the mask leaves
    double recomputed_per_pair = 0;
  };
  std::vector<Attention> attention;
};

// A decoder as the trainer sees it: a chain of units between an embedding and an LM head. A unit is what is gathered,
// recomputed and released as a whole; its input and output are detached from its neighbours'.
//
// One thread at a time. Errors are c10::Error exceptions.
class TrainableModel {
 public:
  virtual ~TrainableModel() = default;

  // Every weight, in an order that does not change. Owned by the model.
  virtual const std::vector<Parameter*>& parameters() const = 0;
  // The base model's weights under their internal names (worker/model/parameter.h).
  virtual const std::vector<WeightView>& views() const = 0;

  // In an order that does not change.
  virtual const std::vector<LoraAdapter*>& adapters() const = 0;
  // Gives new adapters their numbers. To be called once the weights are loaded, and before adapters are.
  virtual void InitLora() = 0;
  // Adds all adapters to the weights that they sit on, in fp32, and makes them zero. fp32 models only.
  virtual void MergeLora() = 0;
  // The tensors of the parameters were exchanged for others (worker/parallel): from now on it computes with those.
  virtual void AdoptMemory() {}

  // Of all weights, and of what is computed with them.
  at::Device device() const { return parameters().front()->weight.device(); }

  virtual BatchContext MakeContext(const at::Tensor& tokens_T, const at::Tensor& positions_T,
                                   const std::vector<int64_t>& document_starts) const = 0;

  // [T, D], what comes before the first unit; not recorded by autograd. A model that is not cut into units does all of
  // its work here, and keeps what EmbedBackward needs, which then follows, where gradients are on.
  virtual at::Tensor Embed(const BatchContext& context) = 0;
  // Adds to the embedding's gradient; nothing when it is frozen.
  virtual void EmbedBackward(const BatchContext& context, const at::Tensor& grad_TD) = 0;
  virtual bool embedding_trainable() const = 0;

  virtual int num_units() const = 0;
  virtual const std::vector<Parameter*>& unit_parameters(int unit) const = 0;
  // [T, D] → [T, D], recorded by autograd. `routing` may be null.
  virtual at::Tensor ForwardUnit(int unit, const at::Tensor& hidden_TD, const BatchContext& context,
                                 Routing* routing) const = 0;
  // How much of the loss is for an even use of experts; 0 without.
  virtual double balance_coefficient() const = 0;

  // What stands between the last unit and the head (the final norm), row by row: [S, D] → [S, D], recorded.
  virtual const std::vector<Parameter*>& final_parameters() const = 0;
  virtual at::Tensor FinishHidden(const at::Tensor& hidden_SD) const = 0;

  // What is not kept from the units' forward passes, one of each; until then all is. A model that is not cut into
  // units keeps all.
  virtual void SetRecompute(const std::vector<Recompute>& units) = 0;

  // As the newest Embed has left it.
  virtual LmHead& head() = 0;
  virtual FlopRates flop_rates() const = 0;

  // Null: all weights are in the model, always. What is set must outlive its use.
  UnitWeights* unit_weights() const { return unit_weights_; }
  void set_unit_weights(UnitWeights* weights) { unit_weights_ = weights; }

 private:
  UnitWeights* unit_weights_ = nullptr;
};

// The first unit that a backward pass reaches: below it nothing is trained. num_units() when no unit is reached.
int FirstTrainedUnit(const TrainableModel& model);

}  // namespace temper
