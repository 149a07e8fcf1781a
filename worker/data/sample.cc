// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample.h"

#include <array>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/data/json_line.h"
#include "worker/data/sample_fields.h"
#include "worker/data/teacher_fields.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kFormFields = {"messages", "prompt", "completion", "text"};

// Which form the line has, by the fields that it has. Whether a prompt is a text or messages is seen later.
absl::StatusOr<SampleForm> FormOf(const SampleFields& fields) {
  const bool prompt = fields.Find("prompt") != nullptr, completion = fields.Find("completion") != nullptr;
  std::vector<std::string> found;
  SampleForm form = SampleForm::kConversation;
  if (fields.Find("messages") != nullptr) found.push_back(fields.Name("messages"));
  if (prompt && completion) {
    found.push_back(absl::StrCat(fields.Name("prompt"), " with ", fields.Name("completion")));
    form = SampleForm::kPromptCompletion;
  }
  if (fields.Find("text") != nullptr) {
    found.push_back(fields.Name("text"));
    form = SampleForm::kText;
  }
  if (found.size() == 1) return form;
  if (found.size() > 1) {
    return fields.Invalid(
        absl::StrCat("the sample has ", absl::StrJoin(found, " and "),
                     "; only one can be trained on. Say which with data.columns, for example {",
                     form == SampleForm::kText ? "text: text" : "prompt: prompt, completion: completion", "}"));
  }
  if (prompt || completion) {
    return fields.Invalid(absl::StrCat("the sample has ", fields.Name(prompt ? "prompt" : "completion"), " but no ",
                                       fields.Name(prompt ? "completion" : "prompt"), "; it must have both"));
  }
  if (fields.Find("chosen") != nullptr && fields.Find("rejected") != nullptr) {
    return fields.Invalid(absl::StrCat("the sample has ", fields.Name("chosen"), " and ", fields.Name("rejected"),
                                       ": pairs are for jobs with method.preference or method.reward"));
  }
  return fields.Invalid(absl::StrCat("the sample has no ", fields.Name("messages"), ", no ", fields.Name("prompt"),
                                     " with ", fields.Name("completion"), " and no ", fields.Name("text"), "; it has ",
                                     fields.FoundKeys(),
                                     ". Name the right field in data.columns, for example {messages: conversation}"));
}

absl::Status ReadPromptedConversation(const SampleFields& fields, Sample& sample) {
  absl::StatusOr<Json> prompt = fields.TakeMessages("prompt");
  if (!prompt.ok()) return prompt.status();
  absl::StatusOr<Json> completion = fields.TakeMessages("completion");
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

absl::Status ReadPromptCompletion(const SampleFields& fields, Sample& sample) {
  const Json& prompt = *fields.Find("prompt");
  const Json& completion = *fields.Find("completion");
  if (prompt.is_array() && completion.is_array()) return ReadPromptedConversation(fields, sample);
  if (prompt.is_array() != completion.is_array()) {
    return fields.Invalid(absl::StrCat(fields.Name("prompt"), " is ", JsonTypeName(prompt), " and ",
                                       fields.Name("completion"), " is ", JsonTypeName(completion),
                                       "; both must be texts, or both lists of messages"));
  }
  absl::StatusOr<std::string> before = fields.TakeText("prompt");
  if (!before.ok()) return before.status();
  absl::StatusOr<std::string> text = fields.TakeText("completion");
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

absl::StatusOr<Sample> ParseSample(std::string_view line, const ColumnNames& columns, const std::string& where,
                                   int64_t teacher_vocab) {
  absl::StatusOr<Json> json = ParseJsonLine(line, where);
  if (!json.ok()) return json.status();
  const SampleFields fields(*json, columns, where, kFormFields);
  const absl::StatusOr<SampleForm> form = FormOf(fields);
  if (!form.ok()) return form.status();

  Sample sample{.form = *form};
  if (teacher_vocab > 0) {
    absl::StatusOr<TeacherTokens> teacher = ReadTeacherTokens(fields, teacher_vocab);
    if (!teacher.ok()) return teacher.status();
    sample.teacher = *std::move(teacher);
  }
  if (sample.form == SampleForm::kText) {
    absl::StatusOr<std::string> text = fields.TakeText("text");
    if (!text.ok()) return text.status();
    sample.text = *std::move(text);
    return sample;
  }
  if (sample.form == SampleForm::kPromptCompletion) {
    absl::Status read = ReadPromptCompletion(fields, sample);
    if (!read.ok()) return read;
    if (sample.form == SampleForm::kPromptCompletion) return sample;
  } else {
    absl::StatusOr<Json> messages = fields.TakeMessages("messages");
    if (!messages.ok()) return messages.status();
    sample.conversation.messages = *std::move(messages);
  }
  absl::StatusOr<Json> variables = fields.TakeVariables();
  if (!variables.ok()) return variables.status();
  sample.conversation.variables = *std::move(variables);
  return sample;
}

}  // namespace temper
