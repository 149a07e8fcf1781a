// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "worker/families/config_reader.h"
#include "worker/families/tensor_rule.h"
#include "worker/model/model_config.h"

namespace temper {

// A family of models, as data. It says how config.json and the tensors of a checkpoint become our one decoder; it holds
// no arithmetic.
struct FamilySpec {
  std::string name;          // "llama"
  std::string architecture;  // in config.json's `architectures`: "LlamaForCausalLM"
  // That of a reward model: "LlamaForSequenceClassification". Empty where transformers has none.
  std::string sequence_classifier;
  // Fills in the model from config.json. Errors go to the reader.
  ModelConfig (*configure)(ConfigReader& config) = nullptr;
  std::vector<TensorRule> rules;
  // Its experts as a module of transformers' own model: parameters gate_up_proj and down_proj, on which a LoRA adapter
  // can sit. Empty without experts.
  std::string experts_module;
  // Its experts may stand packed in MXFP4 (worker/checkpoint/mxfp4.h).
  bool reads_mxfp4 = false;
  // Tensors that are no weights but follow from config.json (old checkpoints carry rotary frequencies). They are not
  // loaded, as in transformers, and are exported as they came.
  std::vector<std::string> derived_tensors;
  // The embedding and the head can have adapters.
  bool token_adapters = true;
};

}  // namespace temper
