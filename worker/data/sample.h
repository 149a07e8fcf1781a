// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/data/conversation.h"
#include "worker/data/teacher_tokens.h"

namespace temper {

// What a line of data may be.
enum class SampleForm {
  kConversation,          // {"messages": [{"role": …, "content": …}, …]}
  kPromptedConversation,  // {"prompt": [messages], "completion": [messages]}
  kPromptCompletion,      // {"prompt": "…", "completion": "…"}
  kText,                  // {"text": "…"}
};

// "a conversation {"messages": […]}", for messages.
std::string Describe(SampleForm form);

struct Sample {
  SampleForm form = SampleForm::kConversation;
  Conversation conversation;   // of the first two forms
  size_t prompt_messages = 0;  // how many of its messages are the prompt
  std::string prompt;          // of kPromptCompletion
  std::string text;            // the completion of kPromptCompletion, or the text of kText
  TeacherTokens teacher;       // without rows where none is asked for
};

// Our names for a sample's fields → the file's, for those that differ. When it names one of `messages`, `prompt`,
// `completion` and `text`, only the named ones say what form a sample has.
using ColumnNames = std::map<std::string, std::string>;

// Parses and checks one line. `tools`, `documents` and `chat_template_kwargs` go to the chat template; other keys are
// ignored, and so is what a teacher has said (ReadTeacherTokens), unless `teacher_vocab` is over 0. INVALID_ARGUMENT
// begins with `where` ("data.jsonl, line 3") and names the field.
absl::StatusOr<Sample> ParseSample(std::string_view line, const ColumnNames& columns, const std::string& where,
                                   int64_t teacher_vocab = 0);

}  // namespace temper
