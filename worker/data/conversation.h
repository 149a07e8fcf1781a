// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace temper {

// What a chat template is given. Ordered JSON: the order of keys shows in prompts.
struct Conversation {
  // At least one; each has a `role` of system, developer, user, assistant or tool, and as `content` a text or a list of
  // {"type": "text", "text": "…"}, which the template gets as it is. An assistant's may be null or absent when it has
  // `tool_calls`.
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  // What else the template gets: the sample's `tools` and `documents` and the contents of `chat_template_kwargs`.
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();
};

// Whether `messages` is what Conversation says. INVALID_ARGUMENT begins with `where` ("data.jsonl, line 3") and names
// what is wrong by the list's name, `field`: "prompt[2].role".
absl::Status CheckMessages(const nlohmann::ordered_json& messages, const std::string& field, const std::string& where);

}  // namespace temper
