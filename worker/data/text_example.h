// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/example.h"
#include "worker/text/tokenizer.h"

namespace temper {

// Texts without a chat template as tokens: what the tokenizer puts before any text (BOS), the text, and the token that
// ends it (eos), which is not put there twice.
class TextExampleBuilder {
 public:
  // `eos_token` is what the model's files call so. FAILED_PRECONDITION when it is empty or no token. The tokenizer must
  // outlive the builder.
  static absl::StatusOr<TextExampleBuilder> Create(const Tokenizer& tokenizer, const std::string& eos_token);

  // All tokens are scored. FAILED_PRECONDITION when there is none to predict. Any thread.
  absl::StatusOr<Example> Text(std::string_view text) const;

  // The completion's tokens and eos are scored; with `score_prompt` the prompt's as well.
  //
  // Both are tokenised as one text, as TRL does, if that begins with the very tokens of the prompt alone; the
  // completion begins behind them. If it does not, because a token would reach over the border, the prompt is tokenised
  // alone, as it will be when the model is used, and the completion alone behind it.
  //   FAILED_PRECONDITION  no such border: the completion alone reads differently (tokenizers that put a space before
  //                        every text)
  // Any thread.
  absl::StatusOr<Example> Completion(std::string_view prompt, std::string_view completion, bool score_prompt) const;

 private:
  TextExampleBuilder(const Tokenizer& tokenizer, uint32_t eos, std::vector<uint32_t> prefix)
      : tokenizer_(tokenizer), eos_(eos), prefix_(std::move(prefix)) {}
  absl::StatusOr<std::vector<uint32_t>> Encode(std::string_view text) const;
  // Puts the prefix before and eos behind; `unscored` is how many of `ids` are not scored, the prefix going with them.
  Example Finish(std::vector<uint32_t> ids, size_t unscored) const;

  const Tokenizer& tokenizer_;
  uint32_t eos_;
  std::vector<uint32_t> prefix_;
};

}  // namespace temper
