// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/data/chat_example.h"
#include "worker/data/example.h"
#include "worker/data/sample.h"
#include "worker/data/text_example.h"
#include "worker/data/train_on.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace temper {

// Makes tokens of samples of any form.
class SampleBuilder {
 public:
  // Tokenizer and template must outlive the builder. A model without a chat template or eos token ("") serves for the
  // samples that need none; the template's status is then the error of those that do.
  SampleBuilder(const Tokenizer& tokenizer, const absl::StatusOr<ChatTemplate>& chat_template,
                const std::string& eos_token, TrainOn train_on = TrainOn::kDefault);

  //   INVALID_ARGUMENT     what is to be learned means nothing for a sample of this form, the template refuses the
  //                        conversation, or the model lacks what the form needs
  //   FAILED_PRECONDITION  no sound mask, as ChatExampleBuilder and TextExampleBuilder have it
  // Any thread.
  absl::StatusOr<Example> Build(const Sample& sample) const;

 private:
  absl::StatusOr<Example> BuildConversation(const Sample& sample, TrainOn train_on) const;

  TrainOn train_on_;
  absl::Status template_status_;
  std::optional<ChatExampleBuilder> chats_;  // absent when there is no template
  absl::StatusOr<TextExampleBuilder> texts_;
};

}  // namespace temper
