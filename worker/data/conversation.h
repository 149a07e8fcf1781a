// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/status/statusor.h"

namespace temper {

// One sample: {"messages": [{"role": "user", "content": "…"}, …]}. Ordered JSON: the order of keys shows in prompts.
struct Conversation {
  // At least one; each has a `role` of system, developer, user, assistant or tool, and as `content` a text or a list of
  // {"type": "text", "text": "…"}. An assistant's may be null or absent when it has `tool_calls`.
  nlohmann::ordered_json messages;
  // What else the template gets: the sample's `tools` and `documents` and the contents of `chat_template_kwargs`.
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();
};

// Parses and checks one line. Other keys of a sample are ignored. INVALID_ARGUMENT begins with `where` ("data.jsonl,
// line 3") and names the field.
absl::StatusOr<Conversation> ParseConversation(std::string_view line, const std::string& where);

}  // namespace temper
