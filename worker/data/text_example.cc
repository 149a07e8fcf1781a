// SPDX-License-Identifier: Apache-2.0
#include "worker/data/text_example.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace temper {
namespace {

absl::StatusOr<std::vector<uint32_t>> Ids(const Tokenizer& tokenizer, std::string_view text, bool add_special_tokens) {
  absl::StatusOr<std::vector<Token>> tokens = tokenizer.Encode(text, add_special_tokens);
  if (!tokens.ok()) return tokens.status();
  std::vector<uint32_t> ids;
  ids.reserve(tokens->size() + 2);
  for (const Token& token : *tokens) ids.push_back(token.id);
  return ids;
}

// What the post-processor puts before a text. What it puts behind (an eos, in a few) is left to the builder.
absl::StatusOr<std::vector<uint32_t>> SpecialPrefix(const Tokenizer& tokenizer) {
  absl::StatusOr<std::vector<uint32_t>> with = Ids(tokenizer, "a", /*add_special_tokens=*/true);
  if (!with.ok()) return with.status();
  absl::StatusOr<std::vector<uint32_t>> without = Ids(tokenizer, "a", /*add_special_tokens=*/false);
  if (!without.ok()) return without.status();
  with->erase(std::search(with->begin(), with->end(), without->begin(), without->end()), with->end());
  return with;
}

}  // namespace

absl::StatusOr<TextExampleBuilder> TextExampleBuilder::Create(const Tokenizer& tokenizer,
                                                              const std::string& eos_token) {
  if (eos_token.empty()) {
    return absl::FailedPreconditionError(
        "texts end with the model's eos token, but its tokenizer_config.json names no `eos_token`. Add it there");
  }
  const std::optional<uint32_t> eos = tokenizer.TokenToId(eos_token);
  if (!eos.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the `eos_token` of tokenizer_config.json, \"", eos_token,
                     "\", is no token of tokenizer.json. Correct the one or the other"));
  }
  absl::StatusOr<std::vector<uint32_t>> prefix = SpecialPrefix(tokenizer);
  if (!prefix.ok()) return prefix.status();
  return TextExampleBuilder(tokenizer, *eos, *std::move(prefix));
}

absl::StatusOr<std::vector<uint32_t>> TextExampleBuilder::Encode(std::string_view text) const {
  return Ids(tokenizer_, text, /*add_special_tokens=*/false);
}

Example TextExampleBuilder::Finish(std::vector<uint32_t> ids, size_t unscored) const {
  // A text that spells eos out at its end has it already; a prompt that does so has not, since its answer follows.
  if (ids.size() == unscored || ids.back() != eos_) ids.push_back(eos_);
  if (unscored > 0) unscored += prefix_.size();
  ids.insert(ids.begin(), prefix_.begin(), prefix_.end());
  Example example{.ids = std::move(ids)};
  example.scored.assign(example.ids.size(), 1);
  std::fill_n(example.scored.begin(), unscored, 0);
  return example;
}

absl::StatusOr<Example> TextExampleBuilder::Text(std::string_view text) const {
  absl::StatusOr<std::vector<uint32_t>> ids = Encode(text);
  if (!ids.ok()) return ids.status();
  if (ids->empty()) return absl::FailedPreconditionError("the text is empty");
  return Finish(*std::move(ids), 0);
}

absl::StatusOr<Example> TextExampleBuilder::Completion(std::string_view prompt, std::string_view completion,
                                                       bool score_prompt) const {
  absl::StatusOr<std::vector<uint32_t>> before = Encode(prompt);
  if (!before.ok()) return before.status();
  absl::StatusOr<std::vector<uint32_t>> both = Encode(std::string(prompt) + std::string(completion));
  if (!both.ok()) return both.status();
  const size_t border = before->size();
  if (both->size() < border || !std::equal(before->begin(), before->end(), both->begin())) {
    absl::StatusOr<std::vector<uint32_t>> after = Encode(completion);
    if (!after.ok()) return after.status();
    before->insert(before->end(), after->begin(), after->end());
    const absl::StatusOr<std::string> apart = tokenizer_.Decode(*before);
    if (!apart.ok()) return apart.status();
    const absl::StatusOr<std::string> together = tokenizer_.Decode(*both);
    if (!together.ok()) return together.status();
    if (*apart != *together) {
      return absl::FailedPreconditionError(
          "no token of this tokenizer begins where the completion does. Move white space from the end of the prompt to "
          "the beginning of the completion");
    }
    *both = *std::move(before);
  }
  if (border == 0 && prefix_.empty() && both->empty()) {
    return absl::FailedPreconditionError("prompt and completion are empty");
  }
  return Finish(*std::move(both), score_prompt ? 0 : border);
}

}  // namespace temper
