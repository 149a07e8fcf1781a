// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/assistant_spans.h"
#include "worker/data/conversation.h"
#include "worker/data/example.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace temper {

// Which of a conversation's tokens are scored.
struct ScoredTurns {
  bool all_tokens = false;   // every token, the template's and the user's too
  size_t first_message = 0;  // else what the assistant says in this message and later ones
};

// Conversations as tokens: the ids that transformers' apply_chat_template(tokenize=True) gives.
class ChatExampleBuilder {
 public:
  // Both must outlive the builder.
  ChatExampleBuilder(const Tokenizer& tokenizer, const ChatTemplate& chat_template);

  // What the assistant says is scored with the token that ends the turn. Where the template has {% generation %} tags
  // they say what that is, else AssistantSpanFinder does.
  //   INVALID_ARGUMENT     the template refuses the conversation
  //   FAILED_PRECONDITION  no sound mask: no token is scored, all are, or which ones cannot be told; the text says why
  // Any thread.
  absl::StatusOr<Example> Build(const Conversation& conversation, const ScoredTurns& turns = {}) const;

 private:
  absl::StatusOr<std::vector<ByteSpan>> ScoredSpans(const Conversation& conversation, RenderedChat& chat, bool tagged,
                                                    size_t first_message) const;
  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_template_;
  AssistantSpanFinder span_finder_;
};

}  // namespace temper
