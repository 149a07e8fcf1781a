// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/assistant_spans.h"
#include "worker/data/conversation.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace temper {

// A conversation as tokens: the ids that transformers' apply_chat_template(tokenize=True) gives.
struct ChatExample {
  std::vector<uint32_t> ids;
  // 1 for what the assistant says, the token that ends the turn included.
  std::vector<uint8_t> scored;
};

class ChatExampleBuilder {
 public:
  // Both must outlive the builder.
  ChatExampleBuilder(const Tokenizer& tokenizer, const ChatTemplate& chat_template);

  // Where the template has {% generation %} tags they say what is scored, else AssistantSpanFinder does.
  //   INVALID_ARGUMENT     the template refuses the conversation
  //   FAILED_PRECONDITION  no sound mask: no token is scored, all are, or which ones cannot be told; the text says why
  // Any thread.
  absl::StatusOr<ChatExample> Build(const Conversation& conversation) const;

 private:
  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_template_;
  AssistantSpanFinder span_finder_;
};

}  // namespace temper
