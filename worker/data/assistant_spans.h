// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/conversation.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace temper {

// Finds what the assistant says in a rendered conversation, for templates without {% generation %} tags.
//
// A turn begins where the template's generation prompt for the messages before it ends, so that the model learns to
// write all that it will have to write. It ends behind the template's end-of-turn token. An empty pair of thinking tags
// that the template puts in by itself belongs to the prompt.
//
// Nothing is searched for by its words, which may be trimmed, stripped of earlier thoughts or occur twice: the
// conversation is rendered once more as a skeleton (skeleton.h), in which a turn is all that stands between its
// neighbours' placeholders.
class AssistantSpanFinder {
 public:
  // Both must outlive the finder.
  AssistantSpanFinder(const Tokenizer& tokenizer, const ChatTemplate& chat_template);

  // The spans in `rendered`, what the template makes of the conversation without a generation prompt; one for each
  // assistant message, in order. FAILED_PRECONDITION when they cannot be told with certainty. Any thread.
  absl::StatusOr<std::vector<ByteSpan>> Find(const Conversation& conversation, const std::string& rendered) const;

 private:
  const ChatTemplate& chat_template_;
  // What the template puts behind an assistant's text, up to the token that ends the turn ("<|im_end|>", " </s>").
  // Empty when it puts nothing there.
  std::string end_of_turn_;
};

}  // namespace temper
