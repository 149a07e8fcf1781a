// SPDX-License-Identifier: Apache-2.0
// A config.json.
#include <nlohmann/json.hpp>

#include "tests/fuzz/fuzz_input.h"
#include "worker/families/families.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = nlohmann::ordered_json::parse(temper::FuzzText(data, size), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return 0;
  const auto family = temper::FindFamily(json);
  if (!family.ok()) return 0;
  const auto config = temper::ConfigureModel(**family, json);
  if (!config.ok()) return 0;
  temper::Require(config->hidden_size > 0 && config->num_layers > 0 && config->vocab_size > 0);
  temper::Require(config->attention.num_kv_heads > 0 && config->attention.head_dim > 0);
  temper::Require(config->attention.num_heads % config->attention.num_kv_heads == 0);
  return 0;
}
