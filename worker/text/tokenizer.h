// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

struct temper_tokenizer;

namespace temper {

class ObjectStore;

// A token and the bytes of the text that it stands for. Tokens that are parts of one character share its bytes.
struct Token {
  uint32_t id;
  uint32_t begin;
  uint32_t end;
};

// A Hugging Face tokenizer: gives the ids that transformers gives. Movable; const methods from any thread.
class Tokenizer {
 public:
  // Reads tokenizer.json of a model's directory, and the tokens that only its tokenizer_config.json adds.
  // FAILED_PRECONDITION when there is no tokenizer.json, INVALID_ARGUMENT when a file cannot be understood.
  static absl::StatusOr<Tokenizer> Open(const ObjectStore& model);
  // The text of a tokenizer.json; `where` names it in messages. INVALID_ARGUMENT when it cannot be understood.
  static absl::StatusOr<Tokenizer> FromJson(std::string_view json, const std::string& where);

  // `add_special_tokens`: also what the post-processor puts around a text (BOS and the like). A rendered chat template
  // has these already. Special tokens that are spelled out in `text` become themselves, as in transformers.
  // INVALID_ARGUMENT for text that is not UTF-8 or longer than 4 GiB.
  absl::StatusOr<std::vector<Token>> Encode(std::string_view text, bool add_special_tokens) const;
  absl::StatusOr<std::string> Decode(absl::Span<const uint32_t> ids, bool skip_special_tokens = false) const;

  // Tokens, the added ones included: what `len(tokenizer)` is in transformers.
  int64_t vocab_size() const { return vocab_size_; }
  // A model's embedding must have more rows than this.
  int64_t max_id() const { return max_id_; }
  std::optional<uint32_t> TokenToId(std::string_view token) const;
  // NOT_FOUND for an id without a token.
  absl::StatusOr<std::string> IdToToken(uint32_t id) const;
  // Whether the token stands beside the model's vocabulary: never split, merged or normalised (`<|im_end|>`).
  bool IsAdded(uint32_t id) const { return added_.contains(id); }

 private:
  struct Close {
    void operator()(temper_tokenizer* tokenizer) const;
  };

  Tokenizer() = default;
  absl::Status AddTokens(std::string_view tokenizer_config, const std::string& where);
  absl::Status ReadVocabulary();

  std::unique_ptr<temper_tokenizer, Close> handle_;
  int64_t vocab_size_ = 0;
  int64_t max_id_ = -1;
  std::unordered_set<uint32_t> added_;
};

}  // namespace temper
