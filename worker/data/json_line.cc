// SPDX-License-Identifier: Apache-2.0
#include "worker/data/json_line.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

// What reads the JSON later (the template engine, Json::dump) recurses.
constexpr int kDeepestNesting = 100;

int Nesting(std::string_view json) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

// The library's text without its error number and its line, which is always 1.
std::string ParseErrorText(const Json::exception& error) {
  std::string_view text = error.what();
  if (const size_t code = text.find("] "); code != std::string_view::npos) text.remove_prefix(code + 2);
  constexpr std::string_view kStart = "parse error at line 1, column ";
  if (text.substr(0, kStart.size()) == kStart) return absl::StrCat("column ", std::string(text.substr(kStart.size())));
  return std::string(text);
}

}  // namespace

absl::StatusOr<Json> ParseJsonLine(std::string_view line, const std::string& where) {
  if (Nesting(line) > kDeepestNesting) {
    return InvalidSample(where, absl::StrCat("JSON nested more than ", kDeepestNesting, " levels deep"));
  }
  Json sample;
  try {
    sample = Json::parse(line);
  } catch (const Json::exception& error) {  // a number that no double holds is no parse_error
    return InvalidSample(where, absl::StrCat("not valid JSON: ", ParseErrorText(error)));
  }
  if (!sample.is_object()) {
    return InvalidSample(
        where, absl::StrCat("a sample must be an object like {\"messages\": […]}, not ", JsonTypeName(sample)));
  }
  return sample;
}

std::string JsonTypeName(const Json& value) { return value.is_null() ? "null" : value.type_name(); }

absl::Status InvalidSample(const std::string& where, const std::string& text) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", text));
}

}  // namespace temper
