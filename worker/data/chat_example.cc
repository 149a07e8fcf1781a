// SPDX-License-Identifier: Apache-2.0
#include "worker/data/chat_example.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace temper {
namespace {

// Marks the tokens that share a byte with a span. Spans and tokens are in the order of the text.
std::vector<uint8_t> MarkTokens(const std::vector<Token>& tokens, const std::vector<ByteSpan>& spans) {
  std::vector<uint8_t> marks(tokens.size(), 0);
  size_t span = 0;
  size_t previous_end = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    // Some tokenizers leave white space out of a token's offsets; it is the token's all the same.
    const size_t begin = std::min<size_t>(tokens[i].begin, previous_end);
    const size_t end = tokens[i].end;
    previous_end = std::max(previous_end, end);
    while (span < spans.size() && spans[span].end <= begin) ++span;
    marks[i] = span < spans.size() && spans[span].begin < end && begin < end;
  }
  return marks;
}

}  // namespace

ChatExampleBuilder::ChatExampleBuilder(const Tokenizer& tokenizer, const ChatTemplate& chat_template)
    : tokenizer_(tokenizer), chat_template_(chat_template), span_finder_(tokenizer, chat_template) {}

absl::StatusOr<std::vector<ByteSpan>> ChatExampleBuilder::ScoredSpans(const Conversation& conversation,
                                                                      RenderedChat& chat, bool tagged,
                                                                      size_t first_message) const {
  std::vector<ByteSpan> spans = std::move(chat.generation_spans);
  if (!tagged) {
    absl::StatusOr<std::vector<ByteSpan>> found = span_finder_.Find(conversation, chat.text);
    if (!found.ok()) return found.status();
    spans = *std::move(found);
  }
  if (first_message == 0) return spans;
  // One span for each assistant message, in order; of the tags' spans one can only hope so.
  size_t turns = 0, skipped = 0;
  for (size_t i = 0; i < conversation.messages.size(); ++i) {
    if (conversation.messages[i]["role"] != "assistant") continue;
    ++turns;
    skipped += i < first_message;
  }
  if (spans.size() != turns) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot tell which turns are to be learned: the chat template's {% generation %} tags frame ", spans.size(),
        " parts of a conversation with ", turns, " assistant messages. Correct the tags, or train on every turn"));
  }
  spans.erase(spans.begin(), spans.begin() + static_cast<ptrdiff_t>(skipped));
  return spans;
}

absl::StatusOr<Example> ChatExampleBuilder::Build(const Conversation& conversation, const ScoredTurns& turns) const {
  absl::StatusOr<RenderedChat> chat =
      chat_template_.Render(conversation.messages, /*add_generation_prompt=*/false, conversation.variables);
  if (!chat.ok()) return chat.status();
  const bool tagged = chat_template_.HasGenerationTags(conversation.variables);
  absl::StatusOr<std::vector<ByteSpan>> spans = std::vector<ByteSpan>{{0, chat->text.size()}};
  if (!turns.all_tokens) spans = ScoredSpans(conversation, *chat, tagged, turns.first_message);
  if (!spans.ok()) return spans.status();
  absl::StatusOr<std::vector<Token>> tokens = tokenizer_.Encode(chat->text, /*add_special_tokens=*/false);
  if (!tokens.ok()) return tokens.status();

  Example example{.scored = MarkTokens(*tokens, *spans)};
  example.ids.reserve(tokens->size());
  for (const Token& token : *tokens) example.ids.push_back(token.id);
  const size_t scored = std::count(example.scored.begin(), example.scored.end(), 1);
  if (scored == 0) {
    return absl::FailedPreconditionError(
        tagged ? "no token is scored: the chat template's {% generation %} tags frame nothing of this conversation"
               : "no token is scored: the conversation has no assistant message, or only empty ones");
  }
  if (scored == example.ids.size() && !turns.all_tokens) {
    return absl::FailedPreconditionError(
        "every token is scored: the chat template does not set the assistant's text apart from the rest");
  }
  return example;
}

}  // namespace temper
