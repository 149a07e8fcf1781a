// SPDX-License-Identifier: Apache-2.0
#include "worker/model/mechanisms.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace temper {
namespace {

const char* NameOf(RopeConfig::Kind kind) {
  switch (kind) {
    case RopeConfig::Kind::kDefault:
      return "rope_default";
    case RopeConfig::Kind::kLinear:
      return "rope_linear";
    case RopeConfig::Kind::kLlama3:
      return "rope_llama3";
    case RopeConfig::Kind::kDynamic:
      return "rope_dynamic";
    case RopeConfig::Kind::kYarn:
      return "rope_yarn";
    case RopeConfig::Kind::kLongRope:
      return "rope_longrope";
  }
  return "rope_unknown";
}

const char* NameOf(ops::Activation activation) {
  switch (activation) {
    case ops::Activation::kSilu:
      return "silu";
    case ops::Activation::kGeluTanh:
      return "gelu_tanh";
    case ops::Activation::kGelu:
      return "gelu";
    case ops::Activation::kClampedSwiGlu:
      return "clamped_swiglu";
  }
  return "activation_unknown";
}

class Names {
 public:
  void Add(std::string name) { names_.insert(std::move(name)); }
  void AddIf(bool present, const char* name) {
    if (present) names_.insert(name);
  }

  void Attention(const AttentionConfig& attention) {
    const bool shared = attention.num_kv_heads < attention.num_heads;
    Add(!shared ? "mha" : attention.num_kv_heads == 1 ? "mqa" : "gqa");
    const double usual = 1 / std::sqrt(static_cast<double>(attention.head_dim));
    AddIf(std::abs(attention.scale / usual - 1) > 1e-9, "attention_scale");
    AddIf(attention.softcap > 0, "attention_softcap");
    AddIf(attention.qkv_bias, "qkv_bias");
    AddIf(attention.output_bias, "attention_output_bias");
    AddIf(attention.qk_norm == QkNorm::kPerHead, "qk_norm_per_head");
    AddIf(attention.qk_norm == QkNorm::kFullWidth, "qk_norm_full_width");
    AddIf(attention.sinks, "attention_sinks");
  }

  void FeedForward(const FeedForwardConfig& feed_forward) {
    Add(NameOf(feed_forward.activation));
    AddIf(feed_forward.bias, "mlp_bias");
  }

  void Experts(const MoeConfig& moe) {
    Add("experts");
    Add(NameOf(moe.activation));
    AddIf(moe.softmax_over_chosen, "experts_softmax_over_chosen");
    AddIf(!moe.softmax_over_chosen && !moe.normalized, "experts_not_normalized");
    AddIf(moe.bias, "experts_bias");
    AddIf(moe.balance_coefficient > 0, "experts_balance_loss");
  }

  void Rope(const RopeConfig& rope) {
    Add(NameOf(rope.kind));
    AddIf(rope.rotated_share < 1, "rope_partial");
  }

  // Layers of one kind, and which kinds stand side by side.
  void Layers(const ModelConfig& config) {
    std::set<int> ropes;
    bool window = false, full = false, dense = false, experts = false;
    for (int64_t i = 0; i < config.num_layers; ++i) {
      const LayerConfig layer = config.layer(i);
      ropes.insert(layer.rope);
      (layer.window > 0 ? window : full) = true;
      (layer.experts ? experts : dense) = true;
    }
    for (const int rope : ropes) {
      if (rope == kNoRope) {
        Add("layers_without_rope");
      } else {
        Rope(config.ropes[rope]);
      }
    }
    AddIf(ropes.size() - ropes.count(kNoRope) > 1, "rope_by_layer");
    AddIf(window, "sliding_window");
    AddIf(window && full, "sliding_and_full_layers");
    if (dense) FeedForward(config.feed_forward);
    if (experts) Experts(config.moe);
    AddIf(dense && experts, "dense_and_expert_layers");
  }

  void Whole(const ModelConfig& config) {
    AddIf(config.tied_head, "tied_head");
    AddIf(config.norm.weight_offset != 0, "norm_weight_offset");
    AddIf(config.post_norm, config.pre_norm ? "norms_before_and_after" : "norms_after");
    AddIf(config.embedding_scale != 1, "embedding_scale");
    AddIf(config.residual_scale != 1, "residual_scale");
    AddIf(config.logits.scale != 1, "logit_scale");
    AddIf(config.logits.softcap > 0, "logit_softcap");
  }

  std::vector<std::string> Sorted() const { return {names_.begin(), names_.end()}; }

 private:
  std::set<std::string> names_;
};

}  // namespace

std::vector<std::string> Mechanisms(const ModelConfig& config) {
  Names names;
  names.Attention(config.attention);
  names.Layers(config);
  names.Whole(config);
  return names.Sorted();
}

int64_t LeastDepth(const ModelConfig& config) {
  int64_t depth = 2;
  std::vector<LayerConfig> kinds;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerConfig layer = config.layer(i);
    if (std::find(kinds.begin(), kinds.end(), layer) != kinds.end()) continue;
    kinds.push_back(layer);
    depth = std::max(depth, i + 1);
  }
  return std::min(depth, config.num_layers);
}

}  // namespace temper
