// SPDX-License-Identifier: Apache-2.0
#include "worker/data/conversation.h"

#include <algorithm>
#include <array>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/data/json_line.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<const char*, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};

class Checker {
 public:
  explicit Checker(const std::string& where) : where_(where) {}

  absl::Status Invalid(const std::string& text) const { return InvalidSample(where_, text); }

  absl::Status Message(const Json& message, const std::string& field) const {
    if (!message.is_object()) {
      return Invalid(absl::StrCat(field, " must be an object with `role` and `content`, not ", JsonTypeName(message)));
    }
    const auto role = message.find("role");
    if (role == message.end()) {
      const bool share_gpt = message.contains("from") && message.contains("value");
      return Invalid(absl::StrCat(field, " has no `role`", share_gpt ? "; from/value must become role/content" : ""));
    }
    if (!role->is_string()) return Invalid(absl::StrCat(field, ".role must be a text, not ", JsonTypeName(*role)));
    const auto& name = role->get_ref<const std::string&>();
    if (std::find(kRoles.begin(), kRoles.end(), name) == kRoles.end()) {
      return Invalid(absl::StrCat(field, ".role \"", name, "\" is not one of ", absl::StrJoin(kRoles, ", ")));
    }
    const auto calls = message.find("tool_calls");
    const bool has_calls = calls != message.end() && !calls->is_null();
    if (has_calls && !calls->is_array()) {
      return Invalid(absl::StrCat(field, ".tool_calls must be a list, not ", JsonTypeName(*calls)));
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
      return Invalid(absl::StrCat(field, " must be a text or a list of texts, not ", JsonTypeName(content)));
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

absl::Status CheckMessages(const Json& messages, const std::string& field, const std::string& where) {
  const Checker checker(where);
  if (!messages.is_array()) {
    return checker.Invalid(absl::StrCat("`", field, "` must be a list of messages, not ", JsonTypeName(messages)));
  }
  if (messages.empty()) return checker.Invalid(absl::StrCat("`", field, "` is empty"));
  for (size_t i = 0; i < messages.size(); ++i) {
    absl::Status checked = checker.Message(messages[i], absl::StrCat(field, "[", i, "]"));
    if (!checked.ok()) return checked;
  }
  return absl::OkStatus();
}

}  // namespace temper
