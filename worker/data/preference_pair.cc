// SPDX-License-Identifier: Apache-2.0
#include "worker/data/preference_pair.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/data/json_line.h"
#include "worker/data/sample_fields.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

// How much both begin with, of which neither is all.
template <typename Sequence>
size_t CommonBeginning(const Sequence& a, const Sequence& b) {
  const size_t most = std::min(a.size(), b.size());
  if (most == 0) return 0;
  size_t common = 0;
  while (common + 1 < most && a[common] == b[common]) ++common;
  return common;
}

// As bytes of whole characters.
size_t CommonPrompt(const std::string& chosen, const std::string& rejected) {
  size_t common = CommonBeginning(chosen, rejected);
  const auto within_character = [&](const std::string& text) {
    return (static_cast<unsigned char>(text[common]) & 0xc0) == 0x80;
  };
  while (common > 0 && (within_character(chosen) || within_character(rejected))) --common;
  if (common > 0 && chosen[common - 1] == ' ') --common;
  return common;
}

Sample PromptCompletion(std::string prompt, std::string completion) {
  return {.form = SampleForm::kPromptCompletion, .prompt = std::move(prompt), .text = std::move(completion)};
}

absl::StatusOr<PreferencePair> ReadTexts(const SampleFields& fields) {
  absl::StatusOr<std::string> chosen = fields.TakeText("chosen");
  if (!chosen.ok()) return chosen.status();
  absl::StatusOr<std::string> rejected = fields.TakeText("rejected");
  if (!rejected.ok()) return rejected.status();
  if (fields.Find("prompt") != nullptr) {
    const absl::StatusOr<std::string> prompt = fields.TakeText("prompt");
    if (!prompt.ok()) return prompt.status();
    return PreferencePair{PromptCompletion(*prompt, *std::move(chosen)),
                          PromptCompletion(*prompt, *std::move(rejected))};
  }
  const size_t border = CommonPrompt(*chosen, *rejected);
  const std::string prompt = chosen->substr(0, border);
  return PreferencePair{PromptCompletion(prompt, chosen->substr(border)),
                        PromptCompletion(prompt, rejected->substr(border))};
}

// `messages` begin with those of the prompt.
absl::StatusOr<Sample> PromptedConversation(const SampleFields& fields, const std::string& answer, Json messages,
                                            size_t prompt_messages, const Json& variables) {
  const bool answers = std::any_of(messages.begin() + static_cast<ptrdiff_t>(prompt_messages), messages.end(),
                                   [](const Json& message) { return message["role"] == "assistant"; });
  if (!answers) {
    return fields.Invalid(absl::StrCat(fields.Name(answer), " has no assistant message behind the prompt"));
  }
  return Sample{.form = SampleForm::kPromptedConversation,
                .conversation = {.messages = std::move(messages), .variables = variables},
                .prompt_messages = prompt_messages};
}

absl::StatusOr<PreferencePair> ReadConversations(const SampleFields& fields) {
  absl::StatusOr<Json> chosen = fields.TakeMessages("chosen");
  if (!chosen.ok()) return chosen.status();
  absl::StatusOr<Json> rejected = fields.TakeMessages("rejected");
  if (!rejected.ok()) return rejected.status();
  const absl::StatusOr<Json> variables = fields.TakeVariables();
  if (!variables.ok()) return variables.status();
  size_t prompt_messages = CommonBeginning(*chosen, *rejected);
  const Json* const stated = fields.Find("prompt");
  if (stated != nullptr && !stated->is_string()) {
    const absl::StatusOr<Json> prompt = fields.TakeMessages("prompt");
    if (!prompt.ok()) return prompt.status();
    prompt_messages = prompt->size();
    for (Json* const answer : {&*chosen, &*rejected}) answer->insert(answer->begin(), prompt->begin(), prompt->end());
  }
  absl::StatusOr<Sample> preferred =
      PromptedConversation(fields, "chosen", *std::move(chosen), prompt_messages, *variables);
  if (!preferred.ok()) return preferred.status();
  absl::StatusOr<Sample> other =
      PromptedConversation(fields, "rejected", *std::move(rejected), prompt_messages, *variables);
  if (!other.ok()) return other.status();
  return PreferencePair{*std::move(preferred), *std::move(other)};
}

}  // namespace

std::string DescribePair(SampleForm form) {
  return form == SampleForm::kPromptCompletion ? "a pair of texts {\"chosen\": \"…\", \"rejected\": \"…\"}"
                                               : "a pair of messages {\"chosen\": […], \"rejected\": […]}";
}

absl::StatusOr<PreferencePair> ParsePreferencePair(std::string_view line, const ColumnNames& columns,
                                                   const std::string& where) {
  absl::StatusOr<Json> json = ParseJsonLine(line, where);
  if (!json.ok()) return json.status();
  const SampleFields fields(*json, columns, where, {});
  const Json* const chosen = fields.Find("chosen");
  const Json* const rejected = fields.Find("rejected");
  if (chosen == nullptr || rejected == nullptr) {
    return fields.Invalid(absl::StrCat("method.preference and method.reward learn from pairs, but the sample has no ",
                                       fields.Name(chosen == nullptr ? "chosen" : "rejected"), "; it has ",
                                       fields.FoundKeys(),
                                       ". Name the right fields in data.columns, for example {chosen: preferred, "
                                       "rejected: other}"));
  }
  if (chosen->is_array() != rejected->is_array()) {
    return fields.Invalid(absl::StrCat(fields.Name("chosen"), " is ", JsonTypeName(*chosen), " and ",
                                       fields.Name("rejected"), " is ", JsonTypeName(*rejected),
                                       "; both must be texts, or both lists of messages"));
  }
  return chosen->is_array() ? ReadConversations(fields) : ReadTexts(fields);
}

}  // namespace temper
