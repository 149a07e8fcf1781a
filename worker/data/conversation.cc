// SPDX-License-Identifier: Apache-2.0
#include "worker/data/conversation.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<const char*, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};
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
std::string ParseErrorText(const Json::parse_error& error) {
  std::string_view text = error.what();
  if (const size_t code = text.find("] "); code != std::string_view::npos) text.remove_prefix(code + 2);
  constexpr std::string_view kStart = "parse error at line 1, column ";
  if (text.substr(0, kStart.size()) == kStart) return absl::StrCat("column ", std::string(text.substr(kStart.size())));
  return std::string(text);
}

std::string TypeName(const Json& value) { return value.is_null() ? "null" : value.type_name(); }

class Checker {
 public:
  explicit Checker(const std::string& where) : where_(where) {}

  absl::Status Invalid(const std::string& text) const {
    return absl::InvalidArgumentError(absl::StrCat(where_, ": ", text));
  }

  absl::Status Message(const Json& message, const std::string& field) const {
    if (!message.is_object()) {
      return Invalid(absl::StrCat(field, " must be an object with `role` and `content`, not ", TypeName(message)));
    }
    const auto role = message.find("role");
    if (role == message.end()) {
      const bool share_gpt = message.contains("from") && message.contains("value");
      return Invalid(absl::StrCat(field, " has no `role`", share_gpt ? "; from/value must become role/content" : ""));
    }
    if (!role->is_string()) return Invalid(absl::StrCat(field, ".role must be a text, not ", TypeName(*role)));
    const auto& name = role->get_ref<const std::string&>();
    if (std::find(kRoles.begin(), kRoles.end(), name) == kRoles.end()) {
      return Invalid(absl::StrCat(field, ".role \"", name, "\" is not one of ", absl::StrJoin(kRoles, ", ")));
    }
    const auto calls = message.find("tool_calls");
    const bool has_calls = calls != message.end() && !calls->is_null();
    if (has_calls && !calls->is_array()) {
      return Invalid(absl::StrCat(field, ".tool_calls must be a list, not ", TypeName(*calls)));
    }
    const auto content = message.find("content");
    if (content == message.end() || content->is_null()) {
      if (name == "assistant" && has_calls) return absl::OkStatus();
      return Invalid(absl::StrCat(field, " has no `content`"));
    }
    return Content(*content, absl::StrCat(field, ".content"));
  }

 private:
  absl::Status Content(const Json& content, const std::string& field) const {
    if (content.is_string()) return absl::OkStatus();
    if (!content.is_array()) {
      return Invalid(absl::StrCat(field, " must be a text or a list of texts, not ", TypeName(content)));
    }
    for (size_t i = 0; i < content.size(); ++i) {
      const Json& part = content[i];
      const auto text = part.is_object() ? part.find("text") : part.end();
      if (!part.is_object() || part.value("type", Json()) != "text" || text == part.end() || !text->is_string()) {
        return Invalid(absl::StrCat(field, "[", i, "] is not {\"type\": \"text\", \"text\": \"…\"}; only text can be ",
                                    "trained on"));
      }
    }
    return absl::OkStatus();
  }

  const std::string& where_;
};

}  // namespace

absl::StatusOr<Conversation> ParseConversation(std::string_view line, const std::string& where) {
  const Checker checker(where);
  if (Nesting(line) > kDeepestNesting) {
    return checker.Invalid(absl::StrCat("JSON nested more than ", kDeepestNesting, " levels deep"));
  }
  Json sample;
  try {
    sample = Json::parse(line);
  } catch (const Json::parse_error& error) {
    return checker.Invalid(absl::StrCat("not valid JSON: ", ParseErrorText(error)));
  }
  if (!sample.is_object()) {
    return checker.Invalid(absl::StrCat("a sample must be an object {\"messages\": […]}, not ", TypeName(sample)));
  }
  const auto messages = sample.find("messages");
  if (messages == sample.end()) {
    return checker.Invalid(
        "the sample has no `messages`; it must be {\"messages\": [{\"role\": …, \"content\": …}, …]}");
  }
  if (!messages->is_array()) {
    return checker.Invalid(absl::StrCat("`messages` must be a list, not ", TypeName(*messages)));
  }
  if (messages->empty()) return checker.Invalid("`messages` is empty");
  for (size_t i = 0; i < messages->size(); ++i) {
    absl::Status checked = checker.Message((*messages)[i], absl::StrCat("messages[", i, "]"));
    if (!checked.ok()) return checked;
  }
  Conversation conversation{.messages = std::move(*messages)};
  for (const char* key : {"tools", "documents"}) {
    const auto value = sample.find(key);
    if (value == sample.end() || value->is_null()) continue;
    if (!value->is_array()) {
      return checker.Invalid(absl::StrCat("`", key, "` must be a list, not ", TypeName(*value)));
    }
    conversation.variables[key] = std::move(*value);
  }
  if (const auto extra = sample.find("chat_template_kwargs"); extra != sample.end() && !extra->is_null()) {
    if (!extra->is_object()) {
      return checker.Invalid(absl::StrCat("`chat_template_kwargs` must be an object, not ", TypeName(*extra)));
    }
    conversation.variables.update(*extra);
  }
  return conversation;
}

}  // namespace temper
