// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct temper_chat_template;

namespace temper {

class ObjectStore;

// The bytes [begin, end) of a text.
struct ByteSpan {
  size_t begin;
  size_t end;

  friend bool operator==(const ByteSpan&, const ByteSpan&) = default;
};

struct RenderedChat {
  std::string text;
  // What the template's {% generation %} blocks produced: what the assistant says.
  std::vector<ByteSpan> generation_spans;
};

// A model's chat template: renders the bytes that transformers' apply_chat_template renders. Movable; const methods
// from any thread.
//
// Everything that a template sees is ordered JSON: the order of keys shows in what `tojson` writes.
class ChatTemplate {
 public:
  // Looks where transformers looks: chat_template.jinja and additional_chat_templates/NAME.jinja, then `chat_template`
  // in tokenizer_config.json (one template or a list of named ones), then chat_template.json. Of several, "tool_use"
  // serves conversations with tools and "default" all others. Special tokens come from tokenizer_config.json and
  // special_tokens_map.json. `now` (seconds since 1970) is what strftime_now shows, in local time.
  // FAILED_PRECONDITION when there is no template, INVALID_ARGUMENT when a file cannot be understood.
  static absl::StatusOr<ChatTemplate> Open(const ObjectStore& model, int64_t now);
  // One template. `special_tokens` maps bos_token, eos_token … to their text; `where` names the source in messages.
  static absl::StatusOr<ChatTemplate> Compile(std::string_view source, nlohmann::ordered_json special_tokens,
                                              const std::string& where, int64_t now);

  // `variables` are what the template sees beside `messages`, `add_generation_prompt` and the special tokens; `tools`
  // and `documents` are none unless given. INVALID_ARGUMENT, with the template's own words, when it refuses.
  absl::StatusOr<RenderedChat> Render(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                      const nlohmann::ordered_json& variables = nlohmann::ordered_json::object()) const;

  // Whether the template for `variables` marks what the assistant says.
  bool HasGenerationTags(const nlohmann::ordered_json& variables = nlohmann::ordered_json::object()) const;

 private:
  struct Close {
    void operator()(temper_chat_template* chat_template) const;
  };
  struct Compiled {
    std::unique_ptr<temper_chat_template, Close> handle;
    std::string where;
  };

  ChatTemplate() = default;
  static absl::StatusOr<Compiled> CompileOne(std::string_view source, const std::string& where, int64_t now);
  const Compiled& For(const nlohmann::ordered_json& variables) const;

  Compiled default_;
  Compiled tool_use_;  // no handle: the default serves
  nlohmann::ordered_json special_tokens_;
};

}  // namespace temper
