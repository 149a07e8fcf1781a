// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper {

// The JSON object in one line of a data file; ordered, since the order of keys shows in prompts. INVALID_ARGUMENT, with
// `where` ("data.jsonl, line 3") before the text, for anything else and for nesting that would overflow the stack of
// what reads it later.
absl::StatusOr<nlohmann::ordered_json> ParseJsonLine(std::string_view line, const std::string& where);

// "number", "null", … for messages.
std::string JsonTypeName(const nlohmann::ordered_json& value);

// INVALID_ARGUMENT "WHERE: TEXT".
absl::Status InvalidSample(const std::string& where, const std::string& text);

}  // namespace temper
