// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/hf_config.h"

#include <utility>

#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

// transformers 5 writes the number of experts by one name for every family; readers know the older one of a family
// alone.
void WriteBothExpertSpellings(nlohmann::ordered_json& config) {
  const std::pair<const char*, const char*> names[] = {{"num_experts", "num_local_experts"},
                                                       {"num_local_experts", "num_experts"}};
  for (const auto& [name, other] : names) {
    if (!config.contains(name) && config.contains(other)) config[name] = config[other];
  }
}

}  // namespace

nlohmann::ordered_json ExportConfig(nlohmann::ordered_json source, const std::string& dtype, bool quantized) {
  if (!quantized) source.erase("quantization_config");
  nlohmann::ordered_json chosen = dtype;
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (source.contains(key) && source[key].is_string()) chosen = source[key];
  }
  source["dtype"] = chosen;
  source["torch_dtype"] = chosen;
  WriteBothRopeSpellings(source);
  WriteBothExpertSpellings(source);
  return source;
}

nlohmann::ordered_json DeriveGenerationConfig(const nlohmann::ordered_json& config) {
  nlohmann::ordered_json generation = {{"_from_model_config", true}};
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    const auto found = config.find(key);
    if (found != config.end() && !found->is_null()) generation[key] = *found;
  }
  return generation;
}

}  // namespace temper
