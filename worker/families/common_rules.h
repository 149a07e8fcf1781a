// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <vector>

#include "worker/families/tensor_rule.h"

namespace temper {

// Rules that many families share, after the names that Llama introduced.

std::vector<TensorRule> Join(std::initializer_list<std::vector<TensorRule>> rules);

// Embedding, final norm, and LM head or score.
std::vector<TensorRule> OuterRules();
// Norms before attention and before the feed-forward layer.
std::vector<TensorRule> PreNormRules();
// Norms after attention and after the feed-forward layer (OLMo's names).
std::vector<TensorRule> PostNormRules();
// Norms before and after both (Gemma's names).
std::vector<TensorRule> SandwichNormRules();
// q, k, v and o, each a module; biases where the model has them.
std::vector<TensorRule> AttentionRules();
// Norms of queries and keys.
std::vector<TensorRule> QkNormRules();
// gate, up and down, each a module; biases where the model has them.
std::vector<TensorRule> GatedMlpRules();

}  // namespace temper
