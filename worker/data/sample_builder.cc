// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_builder.h"

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

TrainOn Resolve(TrainOn train_on, SampleForm form) {
  if (train_on != TrainOn::kDefault) return train_on;
  switch (form) {
    case SampleForm::kConversation:
      return TrainOn::kAssistant;
    case SampleForm::kPromptedConversation:
    case SampleForm::kPromptCompletion:
      return TrainOn::kCompletion;
    case SampleForm::kText:
      break;
  }
  return TrainOn::kAll;
}

// What a form can be trained on, with the job file's words.
const char* Choices(SampleForm form) {
  switch (form) {
    case SampleForm::kConversation:
      return "assistant, last_turn or all";
    case SampleForm::kPromptedConversation:
      return "completion, assistant, last_turn or all";
    case SampleForm::kPromptCompletion:
      return "completion or all";
    case SampleForm::kText:
      break;
  }
  return "all";
}

bool MeansSomething(TrainOn train_on, SampleForm form) {
  switch (train_on) {
    case TrainOn::kDefault:
    case TrainOn::kAll:
      return true;
    case TrainOn::kCompletion:
      return form == SampleForm::kPromptedConversation || form == SampleForm::kPromptCompletion;
    case TrainOn::kAssistant:
    case TrainOn::kLastTurn:
      break;
  }
  return form == SampleForm::kConversation || form == SampleForm::kPromptedConversation;
}

const char* Name(TrainOn train_on) {
  switch (train_on) {
    case TrainOn::kAssistant:
      return "assistant";
    case TrainOn::kCompletion:
      return "completion";
    case TrainOn::kLastTurn:
      return "last_turn";
    default:
      return "all";
  }
}

size_t LastAssistantMessage(const nlohmann::ordered_json& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i]["role"] == "assistant") return i;
  }
  return 0;
}

}  // namespace

SampleBuilder::SampleBuilder(const Tokenizer& tokenizer, const absl::StatusOr<ChatTemplate>& chat_template,
                             const std::string& eos_token, TrainOn train_on)
    : train_on_(train_on),
      template_status_(chat_template.status()),
      texts_(TextExampleBuilder::Create(tokenizer, eos_token)) {
  if (chat_template.ok()) chats_.emplace(tokenizer, *chat_template);
}

absl::StatusOr<Example> SampleBuilder::Build(const Sample& sample) const {
  const TrainOn train_on = Resolve(train_on_, sample.form);
  if (!MeansSomething(train_on, sample.form)) {
    return absl::InvalidArgumentError(absl::StrCat("data.train_on is ", Name(train_on), ", but this sample is ",
                                                   Describe(sample.form), ", of which one can learn ",
                                                   Choices(sample.form)));
  }
  if (sample.form == SampleForm::kConversation || sample.form == SampleForm::kPromptedConversation) {
    return BuildConversation(sample, train_on);
  }
  // Not a matter of one sample, which would be left out.
  if (!texts_.ok()) return absl::InvalidArgumentError(texts_.status().message());
  if (sample.form == SampleForm::kText) return texts_->Text(sample.text);
  return texts_->Completion(sample.prompt, sample.text, /*score_prompt=*/train_on == TrainOn::kAll);
}

absl::StatusOr<Example> SampleBuilder::BuildConversation(const Sample& sample, TrainOn train_on) const {
  if (!chats_.has_value()) return absl::InvalidArgumentError(template_status_.message());
  ScoredTurns turns;
  if (train_on == TrainOn::kAll) turns.all_tokens = true;
  if (train_on == TrainOn::kCompletion) turns.first_message = sample.prompt_messages;
  if (train_on == TrainOn::kLastTurn) turns.first_message = LastAssistantMessage(sample.conversation.messages);
  return chats_->Build(sample.conversation, turns);
}

}  // namespace temper
