// SPDX-License-Identifier: Apache-2.0
#include "worker/text/template_files.h"

#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"

namespace temper {
namespace {

constexpr char kJinjaFile[] = "chat_template.jinja";
constexpr char kJinjaDirectory[] = "additional_chat_templates";
constexpr std::string_view kJinjaSuffix = ".jinja";
constexpr char kConfigFile[] = "tokenizer_config.json";
constexpr char kProcessorFile[] = "chat_template.json";
constexpr char kSpecialTokensFile[] = "special_tokens_map.json";

// The object in a JSON file; empty when there is no such file.
absl::StatusOr<nlohmann::ordered_json> ReadObject(const ObjectStore& model, const char* file) {
  absl::StatusOr<std::string> text = model.Read(file);
  if (absl::IsNotFound(text.status())) return nlohmann::ordered_json::object();
  if (!text.ok()) return text.status();
  auto object = nlohmann::ordered_json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(model.UriOf(file), " is not a JSON object. Save it again"));
  }
  return object;
}

// `chat_template` of a JSON file: a template, or a list of {"name", "template"}.
absl::Status AddFromJson(const nlohmann::ordered_json& file, const std::string& where, TemplateFiles& files) {
  const auto value = file.find("chat_template");
  if (value == file.end() || value->is_null()) return absl::OkStatus();
  const std::string field = absl::StrCat("chat_template in ", where);
  if (value->is_string()) {
    files.templates["default"] = {value->get<std::string>(), field};
    return absl::OkStatus();
  }
  const auto malformed = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is neither a text nor a list of {\"name\": …, \"template\": …}. Correct it"));
  };
  if (!value->is_array()) return malformed();
  for (const auto& entry : *value) {
    if (!entry.is_object()) return malformed();
    const auto name = entry.find("name");
    const auto text = entry.find("template");
    if (name == entry.end() || !name->is_string() || text == entry.end() || !text->is_string()) return malformed();
    files.templates[name->get<std::string>()] = {text->get<std::string>(),
                                                 absl::StrCat(field, " (", name->get<std::string>(), ")")};
  }
  return absl::OkStatus();
}

absl::Status AddFromJinjaFiles(const ObjectStore& model, TemplateFiles& files) {
  absl::StatusOr<std::string> text = model.Read(kJinjaFile);
  if (text.ok()) {
    files.templates["default"] = {*std::move(text), model.UriOf(kJinjaFile)};
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  absl::StatusOr<std::vector<ObjectInfo>> others = model.List(kJinjaDirectory);
  if (!others.ok()) return others.status();
  for (const ObjectInfo& other : *others) {
    if (!other.path.ends_with(kJinjaSuffix)) continue;
    std::string_view name = other.path;
    name.remove_suffix(kJinjaSuffix.size());
    absl::StatusOr<std::string> source = model.Read(other.path);
    if (!source.ok()) return source.status();
    name.remove_prefix(name.rfind('/') + 1);
    files.templates[std::string(name)] = {*std::move(source), model.UriOf(other.path)};
  }
  return absl::OkStatus();
}

// A special token is a text, or {"content": text, …}.
void AddSpecialTokens(const nlohmann::ordered_json& file, nlohmann::ordered_json& special_tokens) {
  for (const auto& [key, value] : file.items()) {
    if (!key.ends_with("_token") || special_tokens.contains(key)) continue;
    if (value.is_string()) {
      special_tokens[key] = value;
    } else if (value.is_object() && value.contains("content") && value["content"].is_string()) {
      special_tokens[key] = value["content"];
    }
  }
}

}  // namespace

absl::StatusOr<nlohmann::ordered_json> ReadSpecialTokens(const ObjectStore& model) {
  auto special_tokens = nlohmann::ordered_json::object();
  for (const char* name : {kConfigFile, kSpecialTokensFile}) {
    absl::StatusOr<nlohmann::ordered_json> file = ReadObject(model, name);
    if (!file.ok()) return file.status();
    AddSpecialTokens(*file, special_tokens);
  }
  return special_tokens;
}

absl::StatusOr<TemplateFiles> ReadTemplateFiles(const ObjectStore& model) {
  TemplateFiles files;
  absl::StatusOr<nlohmann::ordered_json> config = ReadObject(model, kConfigFile);
  if (!config.ok()) return config.status();
  absl::StatusOr<nlohmann::ordered_json> special_tokens = ReadSpecialTokens(model);
  if (!special_tokens.ok()) return special_tokens.status();
  files.special_tokens = *std::move(special_tokens);

  absl::Status added = AddFromJinjaFiles(model, files);
  if (added.ok() && files.templates.empty()) added = AddFromJson(*config, model.UriOf(kConfigFile), files);
  if (added.ok() && files.templates.empty()) {
    absl::StatusOr<nlohmann::ordered_json> processor = ReadObject(model, kProcessorFile);
    if (!processor.ok()) return processor.status();
    added = AddFromJson(*processor, model.UriOf(kProcessorFile), files);
  }
  if (!added.ok()) return added;
  return files;
}

}  // namespace temper
