// SPDX-License-Identifier: Apache-2.0
#include "worker/hf_backend/hf_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/hf_backend/own_logits_head.h"
#include "worker/hf_backend/status_error.h"

namespace temper {
namespace {

constexpr std::string_view kWeight = ".weight";

// Rows of the first document that logits are compared on.
constexpr int64_t kComparedRows = 64;
// Hidden states are also compared when they are so much larger: a soft cap or a small bias then shows.
constexpr double kLarger = 16;

// Of a Python tensor; its values stay where they are.
Leaf InitFrom(Parameter& parameter, std::string name, const at::Tensor& leaf, bool trainable, bool matrix = false) {
  leaf.requires_grad_(trainable);
  parameter.name = std::move(name);
  parameter.weight = matrix ? leaf.detach().view({-1, leaf.size(-1)}) : leaf.detach();
  parameter.trainable = trainable;
  parameter.decayed = leaf.dim() > 1;
  parameter.weight.requires_grad_(trainable);
  if (trainable && leaf.scalar_type() != at::kFloat) {
    parameter.low = at::zeros_like(parameter.weight.detach(), at::kShort);
  }
  return {&parameter, leaf};
}

bool Close(const at::Tensor& ours_SV, const at::Tensor& theirs_SV, at::ScalarType dtype) {
  const double tolerance = dtype == at::kFloat ? 1e-5 : 2e-2;
  const double largest = theirs_SV.abs().max().item<double>();
  return (ours_SV - theirs_SV).abs().max().item<double>() <= tolerance * largest;
}

}  // namespace

std::string InternalName(const HfWeight& weight) {
  if (weight.kind == HfWeight::Kind::kEmbedding) return "embed.weight";
  if (weight.kind == HfWeight::Kind::kHead) return "lm_head.weight";
  return weight.name;
}

std::string InternalName(const HfWeight& weight, const HfWeight::Piece& piece) {
  return absl::StrCat(weight.name, "[", piece.row, ":", piece.row + piece.rows, "]");
}

absl::StatusOr<std::unique_ptr<HfDecoder>> HfDecoder::Make(std::unique_ptr<HfModel> model, HfDescription description,
                                                           const TransformerOptions& options, Say say) {
  std::unique_ptr<HfDecoder> decoder(new HfDecoder(std::move(model), std::move(description), std::move(say)));
  if (absl::Status taken = decoder->TakeWeights(options); !taken.ok()) return taken;
  if (options.lora) {
    if (absl::Status added = decoder->AddAdapters(*options.lora, options.dtype); !added.ok()) return added;
  }
  return decoder;
}

absl::Status HfDecoder::TakeWeights(const TransformerOptions& options) {
  if (options.dtype == at::kBFloat16) {
    if (absl::Status cast = model_->ToBfloat16(); !cast.ok()) return cast;
  }
  const auto tensors = model_->Weights();
  if (!tensors.ok()) return tensors.status();
  Parameter* embedding = nullptr;
  Parameter* head = nullptr;
  for (const HfWeight& weight : description_.weights) {
    Parameter& parameter = *weights_.emplace_back(std::make_unique<Parameter>());
    leaves_.push_back(InitFrom(parameter, InternalName(weight), tensors->at(weight.name),
                               weight.parameter && !options.lora, /*matrix=*/!weight.pieces.empty()));
    parameters_.push_back(&parameter);
    by_name_[weight.name] = &parameter;
    if (weight.pieces.empty()) views_.push_back({parameter.name, &parameter, 0, parameter.weight.size(0)});
    for (const HfWeight::Piece& piece : weight.pieces) {
      views_.push_back({InternalName(weight, piece), &parameter, piece.row, piece.rows});
    }
    if (weight.kind == HfWeight::Kind::kEmbedding) embedding = &parameter;
    if (weight.kind == HfWeight::Kind::kHead) head = &parameter;
    if (weight.kind == HfWeight::Kind::kLinear || weight.kind == HfWeight::Kind::kConv1d) {
      const std::string module = weight.name.substr(0, weight.name.size() - kWeight.size());
      adapted_[module] = {&parameter, weight.kind == HfWeight::Kind::kConv1d};
    }
  }
  if (description_.tied_head) head = embedding;
  if (head == nullptr) return absl::UnimplementedError(absl::StrCat(description_.architecture, " has no head"));
  head_ = std::make_unique<LmHead>(head, description_.vocab_size, ops::LogitConfig{}, nullptr);
  return absl::OkStatus();
}

absl::Status HfDecoder::AddAdapters(const LoraConfig& lora, at::ScalarType dtype) {
  HfLora wanted = {
      .rank = lora.rank, .alpha = lora.alpha, .rslora = lora.rslora, .dora = lora.dora, .dropout = lora.dropout};
  for (const LoraSite& site : lora.sites) wanted.modules.push_back(site.name);
  const auto factors = model_->AddLora(wanted);
  if (!factors.ok()) return factors.status();
  const auto rank = static_cast<double>(lora.rank);
  for (const LoraSite& site : lora.sites) {
    const std::vector<at::Tensor>& tensors = factors->at(site.name);
    LoraAdapter& adapter = *owned_adapters_.emplace_back(std::make_unique<LoraAdapter>());
    adapter.site = site.name;
    adapter.rows = tensors[1].size(0);
    adapter.scale = lora.alpha / (lora.rslora ? std::sqrt(rank) : rank);
    adapter.dropout = lora.dropout;
    adapter.seed = lora.seed;
    const auto take = [&](Parameter& parameter, const char* factor, const at::Tensor& leaf) {
      leaves_.push_back(InitFrom(parameter, absl::StrCat(site.name, factor), leaf, /*trainable=*/true));
    };
    take(adapter.a_RI, ".lora_A", tensors[0]);
    take(adapter.b_OR, ".lora_B", tensors[1]);
    if (lora.dora) take(adapter.m_O, ".lora_magnitude_vector", tensors[2]);
    adapters_.push_back(&adapter);
    AppendParameters(adapter, parameters_);
  }
  return absl::OkStatus();
}

at::Tensor HfDecoder::AdaptedWeight(const LoraAdapter& adapter) const {
  const auto& [parameter, transposed] = adapted_.find(adapter.site)->second;
  return transposed ? parameter->weight.t() : parameter->weight;
}

void HfDecoder::InitLora() {
  // Shards take the numbers that they have of them.
  for (LoraAdapter* adapter : adapters_) DrawFactors(*adapter);
  GatheredUnit gathered(unit_weights(), UnitWeights::kEnds);
  for (LoraAdapter* adapter : adapters_) InitMagnitude(*adapter, AdaptedWeight(*adapter));
  LookAtWeights();
}

void HfDecoder::MergeLora() {
  GatheredUnit gathered(unit_weights(), UnitWeights::kEnds);
  const at::NoGradGuard no_grad;
  for (LoraAdapter* adapter : adapters_) MergeAdapter(*adapter, AdaptedWeight(*adapter));
  gathered.Keep();
}

void HfDecoder::AdoptMemory() {
  const at::NoGradGuard no_grad;
  for (const Leaf& leaf : leaves_) leaf.tensor.set_data(leaf.parameter->weight.detach().view(leaf.tensor.sizes()));
}

bool HfDecoder::embedding_trainable() const {
  return std::ranges::any_of(leaves_, [](const Leaf& leaf) { return leaf.parameter->trainable; });
}

at::Tensor HfDecoder::Embed(const BatchContext& context) {
  LookAtWeights();
  if (!head_chosen_) ChooseHead(context);
  const bool records = at::GradMode::is_enabled();
  const bool adapters = std::ranges::all_of(adapters_, [](const LoraAdapter* adapter) { return adapter->enabled; });
  const at::Tensor hidden_TD =
      ValueOrThrow(model_->Hidden(context.tokens_T, context.positions_T, context.document_starts, records, adapters));
  if (!records) return hidden_TD;
  recorded_TD_ = hidden_TD;
  return hidden_TD.detach().requires_grad_(embedding_trainable());
}

void HfDecoder::EmbedBackward(const BatchContext& context, const at::Tensor& grad_TD) {
  const at::Tensor recorded_TD = std::exchange(recorded_TD_, at::Tensor());
  if (!recorded_TD.requires_grad()) return;  // the head alone is trained
  BackpropagateInto(leaves_, recorded_TD, grad_TD);
}

void HfDecoder::LookAtWeights() {
  if (std::exchange(looked_at_weights_, true)) return;
  const at::NoGradGuard no_grad;
  for (const Leaf& leaf : leaves_) leaf.tensor.requires_grad_(leaf.parameter->trainable);
  if (const std::string why = ValueOrThrow(model_->CheckPacking()); !why.empty()) {
    say_(absl::StrCat("documents of ", description_.architecture,
                      " are not packed but rows of their own, padded: ", why));
  }
  products_ = ValueOrThrow(model_->Products());
}

FlopRates HfDecoder::flop_rates() const {
  FlopRates rates = {.known = products_.known};
  for (const auto& [name, rows] : products_.rows_per_token) {
    const Parameter& parameter = *by_name_.find(name)->second;
    const double product = 2.0 * rows * static_cast<double>(parameter.weight.numel());
    rates.forward_per_token += product;
    rates.per_token += product * (parameter.trainable ? 3 : 2);
  }
  for (const LoraAdapter* adapter : adapters_) {
    rates.per_token += 6.0 * static_cast<double>(adapter->a_RI.weight.numel() + adapter->b_OR.weight.numel());
  }
  const Parameter& head = *head_->weight();
  rates.forward_per_scored_token = 2.0 * static_cast<double>(head.weight.numel());
  rates.per_scored_token = rates.forward_per_scored_token * (head.trainable ? 3 : 2);
  // Scores and weighted sum, forward once and backward twice; backward makes the scores again.
  std::map<int64_t, FlopRates::Attention> by_window;
  for (const HfProducts::Attention& layer : products_.attention) {
    FlopRates::Attention& attention = by_window[layer.window];
    attention.window = layer.window;
    attention.per_pair += 2.0 * static_cast<double>(layer.query_width + layer.value_width) * 3.0;
    attention.recomputed_per_pair += 2.0 * static_cast<double>(layer.query_width);
  }
  for (const auto& [window, attention] : by_window) rates.attention.push_back(attention);
  return rates;
}

void HfDecoder::ChooseHead(const BatchContext& context) {
  const at::NoGradGuard no_grad;
  const int64_t rows = std::min(kComparedRows, context.document_starts[1]);
  const at::Tensor tokens_T = context.tokens_T.narrow(0, 0, rows);
  const at::Tensor hidden_TD =
      ValueOrThrow(model_->Hidden(tokens_T, context.positions_T.narrow(0, 0, rows), {0, rows}, /*train=*/false,
                                  /*adapters=*/true));
  const at::Tensor expected_TV = ValueOrThrow(model_->Logits(tokens_T));
  // Of numbers that are none nothing can be told; the loss will not be finite either, and the next rows are looked at.
  if (!expected_TV.isfinite().all().item<bool>()) return;
  head_chosen_ = true;
  const at::ScalarType dtype = hidden_TD.scalar_type();
  const auto own = [this](const at::Tensor& hidden_SD) { return ValueOrThrow(model_->OwnLogits(hidden_SD)); };
  const at::Tensor larger_TD = hidden_TD * kLarger;
  if (description_.plain_head && Close(head_->Logits(hidden_TD), expected_TV, dtype) &&
      Close(head_->Logits(larger_TD), own(larger_TD).to(at::kFloat), dtype)) {
    return;
  }
  if (!Close(own(hidden_TD).to(at::kFloat), expected_TV, dtype)) {
    throw StatusError(
        absl::UnimplementedError(absl::StrCat(description_.architecture,
                                              " does more between its body and its head than this backend knows of: "
                                              "its logits can't be told from its hidden states")));
  }
  say_(absl::StrCat("the logits of ", description_.architecture,
                    " are more than a product with its head: they are computed by the model itself"));
  head_ = std::make_unique<OwnLogitsHead>(head_->weight(), description_.vocab_size, own, leaves_);
}

}  // namespace temper
