// SPDX-License-Identifier: Apache-2.0
#include "worker/model/transformer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "worker/model/gradient.h"
#include "worker/model/score_head.h"
#include "worker/ops/embedding.h"

namespace temper {
namespace {

// GEMMs over a vocabulary that is no multiple of 64 are up to three times slower.
int64_t PaddedVocab(int64_t vocab_size) { return (vocab_size + 63) / 64 * 64; }

WeightOptions BaseOptions(const TransformerOptions& options) {
  return {.dtype = options.dtype,
          .trainable = !options.lora.has_value(),
          .observer = options.observer,
          .device = options.device};
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, const TransformerOptions& options)
    : config_(config), final_norm_("final_norm", config.hidden_size, config.norm, BaseOptions(options)) {
  const WeightOptions base = BaseOptions(options);
  const std::vector<int64_t> table = {PaddedVocab(config.vocab_size), config.hidden_size};
  InitParameter(embedding_, "embed.weight", table, base);
  if (config.score_head) {
    InitParameter(head_weight_, "score.weight", {1, config.hidden_size}, base);
  } else if (!config.tied_head) {
    InitParameter(head_weight_, "lm_head.weight", table, base);
  }
  parameters_.push_back(&embedding_);
  views_.push_back({"embed.weight", &embedding_, 0, config.vocab_size});
  embedding_adapter_ = MakeTokenAdapter(options, "embed");
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    auto block = std::make_unique<Block>(layer, config, base);
    if (options.lora) block->AddLora(*options.lora, adapters_);
    unit_parameters_.emplace_back();
    block->AppendParameters(unit_parameters_.back());
    block->AppendViews(views_);
    parameters_.insert(parameters_.end(), unit_parameters_.back().begin(), unit_parameters_.back().end());
    blocks_.push_back(std::move(block));
  }
  final_norm_.AppendParameters(final_parameters_);
  final_norm_.AppendViews(views_);
  parameters_.insert(parameters_.end(), final_parameters_.begin(), final_parameters_.end());
  if (!config.tied_head) {
    parameters_.push_back(&head_weight_);
    views_.push_back({head_weight_.name, &head_weight_, 0, config.head_rows()});
  }
  head_adapter_ = MakeTokenAdapter(options, "lm_head");
  TORCH_CHECK(!options.lora || adapters_.size() == options.lora->sites.size(),
              "LoRA names a map that the model does not have");
  if (config.score_head) {
    head_ = std::make_unique<ScoreHead>(&head_weight_);
    return;
  }
  const bool tied_adapter = options.lora && options.lora->tied_head;
  head_ = std::make_unique<LmHead>(config.tied_head ? &embedding_ : &head_weight_, config.vocab_size, config.logits,
                                   tied_adapter ? embedding_adapter_.get() : head_adapter_.get());
}

std::unique_ptr<LoraAdapter> Transformer::MakeTokenAdapter(const TransformerOptions& options, const std::string& site) {
  if (!options.lora) return nullptr;
  const LoraRows rows = {.rows = PaddedVocab(config_.vocab_size), .in_features = config_.hidden_size};
  auto adapter = MakeLoraAdapterAt(*options.lora, site, rows, at::device(options.device).dtype(options.dtype));
  if (adapter == nullptr) return nullptr;
  adapters_.push_back(adapter.get());
  AppendParameters(*adapter, parameters_);
  return adapter;
}

void Transformer::InitLora() {
  for (LoraAdapter* adapter : adapters_) {
    if (adapter->a_RI.slice != nullptr) DrawFactors(*adapter);  // it was made without numbers
  }
  const bool magnitudes = std::ranges::any_of(adapters_, [](auto* adapter) { return adapter->m_O.weight.defined(); });
  for (int unit = 0; magnitudes && unit < num_units(); ++unit) {
    const GatheredUnit gathered(unit_weights(), unit);
    for (LinearLayer* linear : blocks_[unit]->linear_layers()) linear->InitLora();
  }
}

void Transformer::MergeLora() {
  TORCH_CHECK(!config_.tied_head || head_->adapter() == embedding_adapter_.get(),
              "embedding and head are one matrix, but their adapters are not");
  for (int unit = 0; unit < num_units(); ++unit) {
    GatheredUnit gathered(unit_weights(), unit);
    blocks_[unit]->MergeLora();
    gathered.Keep();
  }
  GatheredUnit gathered(unit_weights(), UnitWeights::kEnds);
  if (embedding_adapter_) MergeAdapter(*embedding_adapter_, embedding_.weight);
  if (head_adapter_) MergeAdapter(*head_adapter_, head_weight_.weight);
  gathered.Keep();
}

BatchContext Transformer::MakeContext(const at::Tensor& tokens_T, const at::Tensor& positions_T,
                                      const std::vector<int64_t>& document_starts) const {
  BatchContext context{tokens_T, positions_T, document_starts, {}};
  for (const RopeConfig& rope : config_.ropes) {
    context.ropes.push_back(ops::MakeRopeTable(rope, config_.attention.head_dim, positions_T, document_starts));
  }
  return context;
}

at::Tensor Transformer::Embed(const BatchContext& context) {
  at::Tensor embedded_TD = ops::EmbeddingLookup(embedding_.weight, context.tokens_T);
  if (embedding_adapter_ && embedding_adapter_->enabled) {
    embedded_TD += LookUpLora(*embedding_adapter_, context.tokens_T);
  }
  return config_.embedding_scale == 1.0 ? embedded_TD : embedded_TD * EmbeddingScale();
}

void Transformer::EmbedBackward(const BatchContext& context, const at::Tensor& grad_TD) {
  if (!embedding_trainable()) return;
  const at::Tensor scaled_TD = config_.embedding_scale == 1.0 ? grad_TD : grad_TD * EmbeddingScale();
  if (embedding_.trainable) ops::EmbeddingBackward(scaled_TD, context.tokens_T, GradientBuffer(embedding_));
  if (embedding_adapter_) LookUpLoraBackward(*embedding_adapter_, context.tokens_T, scaled_TD);
}

at::Tensor Transformer::EmbeddingScale() const {
  return at::scalar_tensor(config_.embedding_scale, embedding_.weight.options().requires_grad(false));
}

at::Tensor Transformer::ForwardUnit(int unit, const at::Tensor& hidden_TD, const BatchContext& context,
                                    Routing* routing) const {
  return blocks_[unit]->Forward(hidden_TD, context, routing);
}

void Transformer::SetRecompute(const std::vector<Recompute>& blocks) {
  TORCH_CHECK(blocks.size() == blocks_.size(), "one for each block");
  for (size_t i = 0; i < blocks.size(); ++i) blocks_[i]->SetRecompute(blocks[i]);
}

at::Tensor Transformer::FinishHidden(const at::Tensor& hidden_SD) const { return final_norm_.Forward(hidden_SD); }

FlopRates Transformer::flop_rates() const {
  FlopRates rates;
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    // Nothing below the first block wants a gradient when the embedding is frozen.
    rates.per_token += blocks_[layer]->FlopsPerToken(layer > 0 || embedding_trainable());
    rates.forward_per_token += blocks_[layer]->ForwardFlopsPerToken(/*adapted=*/false);
    rates.recomputed_per_token += blocks_[layer]->RecomputedFlopsPerToken();
  }
  const double table = 2.0 * static_cast<double>(config_.head_rows() * config_.hidden_size);
  rates.forward_per_scored_token = table;
  rates.per_scored_token = table * (head_->weight()->trainable ? 3 : 2);
  // Both factors of a head's adapter; of an embedding's, one is looked up.
  const auto product = [](int64_t rank, int64_t features) { return 2.0 * static_cast<double>(rank * features) * 3; };
  if (const LoraAdapter* adapter = head_->adapter()) {
    rates.per_scored_token += product(adapter->rank(), config_.vocab_size + config_.hidden_size);
  }
  if (embedding_adapter_) rates.per_token += product(embedding_adapter_->rank(), config_.hidden_size);
  // Scores and weighted sum, H·d each, forward once and backward twice.
  const double width = static_cast<double>(config_.attention.num_heads * config_.attention.head_dim);
  // Backward makes the scores again, and all of it where attention is recomputed.
  std::map<int64_t, FlopRates::Attention> by_window;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    FlopRates::Attention& attention = by_window[config_.layer(layer).window];
    const double scores = 2.0 * width;
    attention.per_pair += 2.0 * scores * 3.0;
    attention.recomputed_per_pair += blocks_[layer]->recompute() == Recompute::kNone ? scores : 3.0 * scores;
  }
  for (auto& [window, attention] : by_window) {
    attention.window = window;
    rates.attention.push_back(attention);
  }
  return rates;
}

}  // namespace temper
