// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/hf_backend/leaf.h"
#include "worker/model/trainable_model.h"
#include "worker/model/transformer.h"
#include "worker/python/hf_model.h"

namespace temper {

// What a weight of a transformers model is called here: as in memory there, but for the embedding ("embed.weight") and
// a head of its own ("lm_head.weight").
std::string InternalName(const HfWeight& weight);
// And one of its pieces.
std::string InternalName(const HfWeight& weight, const HfWeight::Piece& piece);

// A model of transformers as the trainer sees it. It is not cut into units: Embed is all of it but the head, recorded
// until EmbedBackward. Weights are the Python model's own tensors.
//
// Its logits are those of a plain linear head in chunks; where the model does more to them, which the first rows tell,
// they are the model's own. Documents are packed where that can be done, which the first rows tell as well.
//
// One thread at a time. Errors of Python are StatusError exceptions, all others c10::Error.
class HfDecoder : public TrainableModel {
 public:
  // Says what people should know of how this model is trained.
  using Say = std::function<void(const std::string& text)>;

  // `description` is that of the model. Weights are not set (StoreMaster sets them); adapters draw theirs. Errors as
  // HfModel has them.
  static absl::StatusOr<std::unique_ptr<HfDecoder>> Make(std::unique_ptr<HfModel> model, HfDescription description,
                                                         const TransformerOptions& options, Say say);

  const std::vector<Parameter*>& parameters() const override { return parameters_; }
  const std::vector<WeightView>& views() const override { return views_; }
  const std::vector<LoraAdapter*>& adapters() const override { return adapters_; }
  void InitLora() override;
  void MergeLora() override;
  void AdoptMemory() override;

  BatchContext MakeContext(const at::Tensor& tokens_T, const at::Tensor& positions_T,
                           const std::vector<int64_t>& document_starts) const override {
    return {tokens_T, positions_T, document_starts, {}};
  }
  at::Tensor Embed(const BatchContext& context) override;
  void EmbedBackward(const BatchContext& context, const at::Tensor& grad_TD) override;
  bool embedding_trainable() const override;

  int num_units() const override { return 0; }
  const std::vector<Parameter*>& unit_parameters(int unit) const override { return none_; }
  at::Tensor ForwardUnit(int unit, const at::Tensor& hidden_TD, const BatchContext& context,
                         Routing* routing) const override {
    return hidden_TD;
  }
  double balance_coefficient() const override { return 0; }
  const std::vector<Parameter*>& final_parameters() const override { return none_; }
  at::Tensor FinishHidden(const at::Tensor& hidden_SD) const override { return hidden_SD; }
  void SetRecompute(const std::vector<Recompute>& blocks) override {}

  LmHead& head() override { return *head_; }
  FlopRates flop_rates() const override;

 private:
  HfDecoder(std::unique_ptr<HfModel> model, HfDescription description, Say say)
      : model_(std::move(model)), description_(std::move(description)), say_(std::move(say)) {}
  absl::Status TakeWeights(const TransformerOptions& options);
  absl::Status AddAdapters(const LoraConfig& lora, at::ScalarType dtype);
  // The weight that an adapter sits on, as out × in.
  at::Tensor AdaptedWeight(const LoraAdapter& adapter) const;
  // Decides what only weights and the choice of the trained ones can tell, and what only tokens can, once. The weights
  // are gathered.
  void LookAtWeights();
  void ChooseHead(const BatchContext& context);

  std::unique_ptr<HfModel> model_;
  HfDescription description_;
  Say say_;
  std::vector<std::unique_ptr<Parameter>> weights_;
  std::vector<std::unique_ptr<LoraAdapter>> owned_adapters_;
  std::map<std::string, std::pair<Parameter*, bool>, std::less<>> adapted_;  // by site; whether it lies transposed
  std::vector<Leaf> leaves_;                                                 // of parameters_, in their order
  std::vector<Parameter*> parameters_;
  std::vector<WeightView> views_;
  std::vector<LoraAdapter*> adapters_;
  const std::vector<Parameter*> none_;
  std::unique_ptr<LmHead> head_;
  bool looked_at_weights_ = false, head_chosen_ = false;
  HfProducts products_;
  std::map<std::string, Parameter*, std::less<>> by_name_;  // in memory
  at::Tensor recorded_TD_;                                  // of the forward pass whose way back is still to come
};

}  // namespace temper
