// SPDX-License-Identifier: Apache-2.0
#include "worker/text/chat_template.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"
#include "worker/text/rust_bytes.h"
#include "worker/text/template_files.h"

namespace temper {

void ChatTemplate::Close::operator()(temper_chat_template* chat_template) const {
  temper_chat_template_close(chat_template);
}

absl::StatusOr<ChatTemplate::Compiled> ChatTemplate::CompileOne(std::string_view source, const std::string& where,
                                                                int64_t now) {
  RustBytes error;
  Compiled compiled{.where = where};
  compiled.handle.reset(temper_chat_template_compile(RustText(source), source.size(), now, error.out()));
  if (compiled.handle == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the chat template cannot be compiled: ", error.str(), "; it is ", where, ". Correct it there"));
  }
  return compiled;
}

absl::StatusOr<ChatTemplate> ChatTemplate::Compile(std::string_view source, nlohmann::ordered_json special_tokens,
                                                   const std::string& where, int64_t now) {
  absl::StatusOr<Compiled> compiled = CompileOne(source, where, now);
  if (!compiled.ok()) return compiled.status();
  ChatTemplate chat_template;
  chat_template.default_ = *std::move(compiled);
  chat_template.special_tokens_ = std::move(special_tokens);
  return chat_template;
}

absl::StatusOr<ChatTemplate> ChatTemplate::Open(const ObjectStore& model, int64_t now) {
  absl::StatusOr<TemplateFiles> files = ReadTemplateFiles(model);
  if (!files.ok()) return files.status();
  if (files->templates.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no chat template in ", model.uri(), ": looked for chat_template.jinja, `chat_template` in ",
        "tokenizer_config.json and chat_template.json. A base model has none: copy the one of its instruct version"));
  }
  const auto usual = files->templates.find("default");
  if (usual == files->templates.end()) {
    std::string names;
    for (const auto& [name, source] : files->templates) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
    return absl::FailedPreconditionError(absl::StrCat("the chat templates in ", model.uri(), " are named ", names,
                                                      ", and none is named default. Name one of them so"));
  }
  absl::StatusOr<ChatTemplate> chat_template =
      Compile(usual->second.text, std::move(files->special_tokens), usual->second.where, now);
  if (!chat_template.ok()) return chat_template;
  if (const auto tool_use = files->templates.find("tool_use"); tool_use != files->templates.end()) {
    absl::StatusOr<Compiled> compiled = CompileOne(tool_use->second.text, tool_use->second.where, now);
    if (!compiled.ok()) return compiled.status();
    chat_template->tool_use_ = *std::move(compiled);
  }
  return chat_template;
}

const ChatTemplate::Compiled& ChatTemplate::For(const nlohmann::ordered_json& variables) const {
  const auto tools = variables.find("tools");
  const bool with_tools = tools != variables.end() && !tools->is_null();
  return with_tools && tool_use_.handle != nullptr ? tool_use_ : default_;
}

absl::StatusOr<RenderedChat> ChatTemplate::Render(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                                  const nlohmann::ordered_json& variables) const {
  nlohmann::ordered_json all = special_tokens_;
  all["tools"] = nullptr;
  all["documents"] = nullptr;
  all.update(variables);
  all["messages"] = messages;
  all["add_generation_prompt"] = add_generation_prompt;
  const std::string text = all.dump();
  const Compiled& compiled = For(variables);
  RustBytes out, spans;
  if (!temper_chat_template_render(compiled.handle.get(), RustText(text), text.size(), out.out(), spans.out())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the chat template refuses this conversation: ", out.str(), "; it is ", compiled.where));
  }
  RenderedChat chat{.text = out.str()};
  const std::vector<uint64_t> borders = spans.items<uint64_t>();
  for (size_t i = 0; i + 1 < borders.size(); i += 2) chat.generation_spans.push_back({borders[i], borders[i + 1]});
  return chat;
}

bool ChatTemplate::HasGenerationTags(const nlohmann::ordered_json& variables) const {
  return temper_chat_template_has_generation_tags(For(variables).handle.get());
}

}  // namespace temper
