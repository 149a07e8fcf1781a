// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample.h"

#include <array>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/data/json_line.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<const char*, 4> kFormFields = {"messages", "prompt", "completion", "text"};

// The fields of one line, by our names.
class Fields {
 public:
  Fields(Json& line, const ColumnNames& columns, const std::string& where)
      : line_(line), columns_(columns), where_(where) {
    for (const char* field : kFormFields) form_is_named_ = form_is_named_ || columns.contains(field);
  }

  // Null when there is no such field, or when it does not count.
  Json* Find(const std::string& field) const {
    const auto column = columns_.find(field);
    if (column == columns_.end() && form_is_named_ && IsFormField(field)) return nullptr;
    const auto value = line_.find(column == columns_.end() ? field : column->second);
    return value == line_.end() || value->is_null() ? nullptr : &*value;
  }

  // As a person would look for it: "`messages`", or "`conversation` (messages)" where the file has another name for it.
  std::string Name(const std::string& field) const {
    const auto column = columns_.find(field);
    return column == columns_.end() ? absl::StrCat("`", field, "`")
                                    : absl::StrCat("`", column->second, "` (", field, ")");
  }

  absl::Status Invalid(const std::string& text) const { return InvalidSample(where_, text); }

  absl::StatusOr<std::string> Text(const std::string& field) const {
    Json& value = *Find(field);
    if (!value.is_string()) return Invalid(absl::StrCat(Name(field), " must be a text, not ", JsonTypeName(value)));
    return std::move(value.get_ref<std::string&>());
  }

  absl::StatusOr<Json> Messages(const std::string& field) const {
    Json& value = *Find(field);
    const auto column = columns_.find(field);
    absl::Status checked = CheckMessages(value, column == columns_.end() ? field : column->second, where_);
    if (!checked.ok()) return checked;
    return std::move(value);
  }

  // What the template gets beside the messages.
  absl::StatusOr<Json> Variables() const {
    Json variables = Json::object();
    for (const char* key : {"tools", "documents"}) {
      Json* const value = Find(key);
      if (value == nullptr) continue;
      if (!value->is_array()) return Invalid(absl::StrCat(Name(key), " must be a list, not ", JsonTypeName(*value)));
      variables[key] = std::move(*value);
    }
    if (const Json* const extra = Find("chat_template_kwargs"); extra != nullptr) {
      if (!extra->is_object()) {
        return Invalid(absl::StrCat(Name("chat_template_kwargs"), " must be an object, not ", JsonTypeName(*extra)));
      }
      variables.update(*extra);
    }
    return variables;
  }

  // Which form the line has, by the fields that it has. Whether a prompt is a text or messages is seen later.
  absl::StatusOr<SampleForm> Form() const {
    const bool prompt = Find("prompt") != nullptr, completion = Find("completion") != nullptr;
    std::vector<std::string> found;
    SampleForm form = SampleForm::kConversation;
    if (Find("messages") != nullptr) found.push_back(Name("messages"));
    if (prompt && completion) {
      found.push_back(absl::StrCat(Name("prompt"), " with ", Name("completion")));
      form = SampleForm::kPromptCompletion;
    }
    if (Find("text") != nullptr) {
      found.push_back(Name("text"));
      form = SampleForm::kText;
    }
    if (found.size() == 1) return form;
    if (found.size() > 1) {
      return Invalid(absl::StrCat("the sample has ", absl::StrJoin(found, " and "),
                                  "; only one can be trained on. Say which with data.columns, for example {",
                                  form == SampleForm::kText ? "text: text" : "prompt: prompt, completion: completion",
                                  "}"));
    }
    if (prompt || completion) {
      return Invalid(absl::StrCat("the sample has ", Name(prompt ? "prompt" : "completion"), " but no ",
                                  Name(prompt ? "completion" : "prompt"), "; it must have both"));
    }
    return Invalid(absl::StrCat("the sample has no ", Name("messages"), ", no ", Name("prompt"), " with ",
                                Name("completion"), " and no ", Name("text"), "; it has ", FoundKeys(),
                                ". Name the right field in data.columns, for example {messages: conversation}"));
  }

 private:
  static bool IsFormField(const std::string& field) {
    for (const char* known : kFormFields) {
      if (field == known) return true;
    }
    return false;
  }

  std::string FoundKeys() const {
    constexpr size_t kShown = 5;
    std::vector<std::string> keys;
    for (const auto& [key, value] : line_.items()) {
      if (keys.size() == kShown) {
        keys.push_back("…");
        break;
      }
      // A key may be as long as the line.
      keys.push_back(key.size() <= 40 ? absl::StrCat("`", key, "`") : "a very long key");
    }
    return keys.empty() ? "no fields at all" : absl::StrJoin(keys, ", ");
  }

  Json& line_;
  const ColumnNames& columns_;
  const std::string& where_;
  bool form_is_named_ = false;
};

absl::Status ReadPromptedConversation(const Fields& fields, Sample& sample) {
  absl::StatusOr<Json> prompt = fields.Messages("prompt");
  if (!prompt.ok()) return prompt.status();
  absl::StatusOr<Json> completion = fields.Messages("completion");
  if (!completion.ok()) return completion.status();
  bool answers = false;
  for (const Json& message : *completion) answers = answers || message["role"] == "assistant";
  if (!answers) {
    return fields.Invalid(absl::StrCat(fields.Name("completion"), " has no assistant message: nothing is to learn"));
  }
  sample.form = SampleForm::kPromptedConversation;
  sample.prompt_messages = prompt->size();
  sample.conversation.messages = *std::move(prompt);
  for (Json& message : *completion) sample.conversation.messages.push_back(std::move(message));
  return absl::OkStatus();
}

absl::Status ReadPromptCompletion(const Fields& fields, Sample& sample) {
  const Json& prompt = *fields.Find("prompt");
  const Json& completion = *fields.Find("completion");
  if (prompt.is_array() && completion.is_array()) return ReadPromptedConversation(fields, sample);
  if (prompt.is_array() != completion.is_array()) {
    return fields.Invalid(absl::StrCat(fields.Name("prompt"), " is ", JsonTypeName(prompt), " and ",
                                       fields.Name("completion"), " is ", JsonTypeName(completion),
                                       "; both must be texts, or both lists of messages"));
  }
  absl::StatusOr<std::string> before = fields.Text("prompt");
  if (!before.ok()) return before.status();
  absl::StatusOr<std::string> text = fields.Text("completion");
  if (!text.ok()) return text.status();
  sample.prompt = *std::move(before);
  sample.text = *std::move(text);
  return absl::OkStatus();
}

}  // namespace

std::string Describe(SampleForm form) {
  switch (form) {
    case SampleForm::kConversation:
      return "a conversation {\"messages\": […]}";
    case SampleForm::kPromptedConversation:
      return "prompt and completion as messages {\"prompt\": […], \"completion\": […]}";
    case SampleForm::kPromptCompletion:
      return "prompt and completion as texts {\"prompt\": \"…\", \"completion\": \"…\"}";
    case SampleForm::kText:
      return "a text {\"text\": \"…\"}";
  }
  return "";
}

absl::StatusOr<Sample> ParseSample(std::string_view line, const ColumnNames& columns, const std::string& where) {
  absl::StatusOr<Json> json = ParseJsonLine(line, where);
  if (!json.ok()) return json.status();
  const Fields fields(*json, columns, where);
  const absl::StatusOr<SampleForm> form = fields.Form();
  if (!form.ok()) return form.status();

  Sample sample{.form = *form};
  if (sample.form == SampleForm::kText) {
    absl::StatusOr<std::string> text = fields.Text("text");
    if (!text.ok()) return text.status();
    sample.text = *std::move(text);
    return sample;
  }
  if (sample.form == SampleForm::kPromptCompletion) {
    absl::Status read = ReadPromptCompletion(fields, sample);
    if (!read.ok()) return read;
    if (sample.form == SampleForm::kPromptCompletion) return sample;
  } else {
    absl::StatusOr<Json> messages = fields.Messages("messages");
    if (!messages.ok()) return messages.status();
    sample.conversation.messages = *std::move(messages);
  }
  absl::StatusOr<Json> variables = fields.Variables();
  if (!variables.ok()) return variables.status();
  sample.conversation.variables = *std::move(variables);
  return sample;
}

}  // namespace temper
