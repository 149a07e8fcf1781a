// SPDX-License-Identifier: Apache-2.0
#include "worker/text/tokenizer.h"

#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"
#include "worker/text/rust_bytes.h"

namespace temper {
namespace {

constexpr char kTokenizerFile[] = "tokenizer.json";
constexpr char kConfigFile[] = "tokenizer_config.json";

absl::Status NoTokenizer(const ObjectStore& model) {
  for (const char* slow : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt"}) {
    absl::StatusOr<bool> exists = model.Exists(slow);
    if (exists.ok() && *exists) {
      return absl::FailedPreconditionError(absl::StrCat(
          model.uri(), " has ", slow, " but no tokenizer.json: it is a slow-only tokenizer. Convert it once with ",
          "transformers: AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)"));
    }
  }
  return absl::FailedPreconditionError(absl::StrCat("no tokenizer.json in ", model.uri(),
                                                    ": copy the tokenizer's files into the model's directory "
                                                    "(AutoTokenizer.from_pretrained(NAME).save_pretrained(DIR))"));
}

}  // namespace

void Tokenizer::Close::operator()(temper_tokenizer* tokenizer) const { temper_tokenizer_close(tokenizer); }

absl::StatusOr<Tokenizer> Tokenizer::Open(const ObjectStore& model) {
  constexpr int64_t kMaxSize = 1 << 30;
  absl::StatusOr<std::string> json = model.Read(kTokenizerFile, kMaxSize);
  if (absl::IsNotFound(json.status())) return NoTokenizer(model);
  if (!json.ok()) return json.status();
  absl::StatusOr<Tokenizer> tokenizer = FromJson(*json, model.UriOf(kTokenizerFile));
  if (!tokenizer.ok()) return tokenizer;

  absl::StatusOr<std::string> config = model.Read(kConfigFile);
  if (absl::IsNotFound(config.status())) return tokenizer;
  if (!config.ok()) return config.status();
  absl::Status added = tokenizer->AddTokens(*config, model.UriOf(kConfigFile));
  if (!added.ok()) return added;
  return tokenizer;
}

absl::StatusOr<Tokenizer> Tokenizer::FromJson(std::string_view json, const std::string& where) {
  Tokenizer tokenizer;
  RustBytes error;
  tokenizer.handle_.reset(temper_tokenizer_open(RustText(json), json.size(), error.out()));
  if (tokenizer.handle_ == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " is not a tokenizer of the Hugging Face tokenizers library: ", error.str(),
                     ". Save it again with transformers (tokenizer.save_pretrained)"));
  }
  absl::Status read = tokenizer.ReadVocabulary();
  if (!read.ok()) return read;
  return tokenizer;
}

// transformers adds what `added_tokens_decoder` lists and tokenizer.json lacks, in the order of the ids.
absl::Status Tokenizer::AddTokens(std::string_view tokenizer_config, const std::string& where) {
  const auto config = nlohmann::json::parse(tokenizer_config, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, " is not a JSON object. Save the tokenizer again"));
  }
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || !decoder->is_object()) return absl::OkStatus();
  std::map<int64_t, nlohmann::json> missing;
  for (const auto& [key, token] : decoder->items()) {
    int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || !token.is_object() || !token.contains("content") ||
        !token["content"].is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": added_tokens_decoder[\"", key, "\"] is not a token with an id. Save it again"));
    }
    const auto& content = token["content"].get_ref<const std::string&>();
    if (!TokenToId(content).has_value()) {
      nlohmann::json complete = {
          {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", false}};
      complete.update(token);
      missing.emplace(id, std::move(complete));
    }
  }
  if (missing.empty()) return absl::OkStatus();
  nlohmann::json tokens = nlohmann::json::array();
  for (auto& [id, token] : missing) tokens.push_back(token);
  const std::string text = tokens.dump();
  RustBytes error;
  if (!temper_tokenizer_add_tokens(handle_.get(), RustText(text), text.size(), error.out())) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": added_tokens_decoder: ", error.str()));
  }
  for (const auto& [id, token] : missing) {
    const std::string content = token["content"];
    const std::optional<uint32_t> got = TokenToId(content);
    if (got != id) {
      return absl::InvalidArgumentError(absl::StrCat(
          where, ": added_tokens_decoder gives the token \"", content, "\" the id ", id, ", but after tokenizer.json ",
          "it would be ", got.value_or(-1), ". Save the tokenizer again with transformers so that the two agree"));
    }
  }
  return ReadVocabulary();
}

absl::Status Tokenizer::ReadVocabulary() {
  RustBytes out;
  if (!temper_tokenizer_vocabulary(handle_.get(), out.out())) return absl::InternalError(out.str());
  const auto vocabulary = nlohmann::json::parse(out.view());
  vocab_size_ = vocabulary["size"];
  max_id_ = vocabulary["max_id"].is_null() ? -1 : vocabulary["max_id"].get<int64_t>();
  added_.clear();
  for (const auto& token : vocabulary["added"]) added_.insert(token["id"].get<uint32_t>());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Token>> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  if (text.size() > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError("a text to tokenise is longer than 4 GiB. Split it");
  }
  RustBytes out;
  if (!temper_tokenizer_encode(handle_.get(), RustText(text), text.size(), add_special_tokens, out.out())) {
    return absl::InvalidArgumentError(absl::StrCat("tokenisation failed: ", out.str()));
  }
  return out.items<Token>();
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const uint32_t> ids, bool skip_special_tokens) const {
  RustBytes out;
  if (!temper_tokenizer_decode(handle_.get(), ids.data(), ids.size(), skip_special_tokens, out.out())) {
    return absl::InvalidArgumentError(absl::StrCat("decoding tokens failed: ", out.str()));
  }
  return out.str();
}

std::optional<uint32_t> Tokenizer::TokenToId(std::string_view token) const {
  uint32_t id = 0;
  if (!temper_tokenizer_token_to_id(handle_.get(), RustText(token), token.size(), &id)) return std::nullopt;
  return id;
}

absl::StatusOr<std::string> Tokenizer::IdToToken(uint32_t id) const {
  RustBytes out;
  if (!temper_tokenizer_id_to_token(handle_.get(), id, out.out())) return absl::NotFoundError(out.str());
  return out.str();
}

}  // namespace temper
