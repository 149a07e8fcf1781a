// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/model/block.h"
#include "worker/model/model_config.h"
#include "worker/model/trainable_model.h"

namespace temper {

struct TransformerOptions {
  at::ScalarType dtype = at::kFloat;  // fp32 or bf16: weights and activations
  // Present: the base model is frozen, these adapters train.
  std::optional<LoraConfig> lora;
  // HF modules that are trained beside the adapters (TrainModules). With `lora` only.
  std::vector<std::string> trained_modules;
  // Weights that stay as they are, as patterns for their HF names (FreezeWeights). Not with `lora`.
  std::vector<std::string> freeze;
  // Sees what every linear map and norm computes; outlives the model. Null in training.
  ModuleObserver* observer = nullptr;
  at::Device device = at::kCPU;  // kMeta: shapes without values
};

// The native decoder: embedding, blocks (a unit each), final norm, LM head or score. All weights are zero until
// StoreMaster sets them (worker/checkpoint loads them).
//
// Throws c10::Error when a LoRA site does not exist.
class Transformer : public TrainableModel {
 public:
  Transformer(const ModelConfig& config, const TransformerOptions& options);

  const std::vector<Parameter*>& parameters() const override { return parameters_; }
  const std::vector<WeightView>& views() const override { return views_; }
  // The embedding's, those of the layers in their order, the head's.
  const std::vector<LoraAdapter*>& adapters() const override { return adapters_; }
  const ModelConfig& config() const { return config_; }

  void InitLora() override;
  void MergeLora() override;

  BatchContext MakeContext(const at::Tensor& tokens_T, const at::Tensor& positions_T,
                           const std::vector<int64_t>& document_starts) const override;
  at::Tensor Embed(const BatchContext& context) override;
  void EmbedBackward(const BatchContext& context, const at::Tensor& grad_TD) override;
  bool embedding_trainable() const override { return embedding_.trainable || embedding_adapter_ != nullptr; }

  int num_units() const override { return static_cast<int>(blocks_.size()); }
  const std::vector<Parameter*>& unit_parameters(int unit) const override { return unit_parameters_[unit]; }
  at::Tensor ForwardUnit(int unit, const at::Tensor& hidden_TD, const BatchContext& context,
                         Routing* routing) const override;
  double balance_coefficient() const override { return config_.moe.balance_coefficient; }

  const std::vector<Parameter*>& final_parameters() const override { return final_parameters_; }
  at::Tensor FinishHidden(const at::Tensor& hidden_SD) const override;

  void SetRecompute(const std::vector<Recompute>& blocks) override;

  LmHead& head() override { return *head_; }
  FlopRates flop_rates() const override;

 private:
  // Makes the adapter of a matrix with a row a token, when the config has one at `site`; null otherwise.
  std::unique_ptr<LoraAdapter> MakeTokenAdapter(const TransformerOptions& options, const std::string& site);

  // In the weights' dtype, as HF has it: in bf16 it is rounded.
  at::Tensor EmbeddingScale() const;

  ModelConfig config_;
  Parameter embedding_;
  std::unique_ptr<LoraAdapter> embedding_adapter_;  // null without
  std::vector<std::unique_ptr<Block>> blocks_;
  RmsNormLayer final_norm_;
  Parameter head_weight_;                      // undefined when tied
  std::unique_ptr<LoraAdapter> head_adapter_;  // null without, and when the head has the embedding's
  std::unique_ptr<LmHead> head_;
  std::vector<Parameter*> parameters_;
  std::vector<WeightView> views_;
  std::vector<LoraAdapter*> adapters_;
  std::vector<std::vector<Parameter*>> unit_parameters_;
  std::vector<Parameter*> final_parameters_;
};

}  // namespace temper
