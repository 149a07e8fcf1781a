// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace temper {

class ObjectStore;

struct TemplateSource {
  std::string text;
  std::string where;  // for messages
};

// What a model's directory says about its chat templates.
struct TemplateFiles {
  std::map<std::string, TemplateSource> templates;  // by name; "default" is the usual one
  nlohmann::ordered_json special_tokens;            // "bos_token" → text, …
};

// Reads them, looking where transformers looks (chat_template.h lists the places). `templates` may be empty.
// INVALID_ARGUMENT for a file that cannot be understood.
absl::StatusOr<TemplateFiles> ReadTemplateFiles(const ObjectStore& model);

// "bos_token" → text, …, as tokenizer_config.json and special_tokens_map.json have them; maybe none.
// INVALID_ARGUMENT for a file that cannot be understood.
absl::StatusOr<nlohmann::ordered_json> ReadSpecialTokens(const ObjectStore& model);

}  // namespace temper
