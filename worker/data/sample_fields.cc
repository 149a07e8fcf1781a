// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_fields.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/data/json_line.h"

namespace temper {

using Json = nlohmann::ordered_json;

SampleFields::SampleFields(Json& record, const ColumnNames& columns, const std::string& where,
                           std::span<const char* const> forms)
    : record_(record), columns_(columns), where_(where), forms_(forms) {
  form_is_named_ = std::ranges::any_of(forms_, [&](const char* field) { return columns_.contains(field); });
}

bool SampleFields::Counts(const std::string& field) const {
  if (columns_.contains(field) || !form_is_named_) return true;
  return std::ranges::none_of(forms_, [&](const char* form) { return field == form; });
}

Json* SampleFields::Find(const std::string& field) const {
  if (!Counts(field)) return nullptr;
  const auto column = columns_.find(field);
  const auto value = record_.find(column == columns_.end() ? field : column->second);
  return value == record_.end() || value->is_null() ? nullptr : &*value;
}

std::string SampleFields::Name(const std::string& field) const {
  const auto column = columns_.find(field);
  return column == columns_.end() ? absl::StrCat("`", field, "`")
                                  : absl::StrCat("`", column->second, "` (", field, ")");
}

std::string SampleFields::FoundKeys() const {
  constexpr size_t kShown = 5;
  std::vector<std::string> keys;
  for (const auto& [key, value] : record_.items()) {
    if (keys.size() == kShown) {
      keys.push_back("…");
      break;
    }
    // A key may be as long as the line.
    keys.push_back(key.size() <= 40 ? absl::StrCat("`", key, "`") : "a very long key");
  }
  return keys.empty() ? "no fields at all" : absl::StrJoin(keys, ", ");
}

absl::Status SampleFields::Invalid(const std::string& text) const { return InvalidSample(where_, text); }

absl::StatusOr<std::string> SampleFields::TakeText(const std::string& field) const {
  Json& value = *Find(field);
  if (!value.is_string()) return Invalid(absl::StrCat(Name(field), " must be a text, not ", JsonTypeName(value)));
  return std::move(value.get_ref<std::string&>());
}

absl::StatusOr<Json> SampleFields::TakeMessages(const std::string& field) const {
  Json& value = *Find(field);
  const auto column = columns_.find(field);
  absl::Status checked = CheckMessages(value, column == columns_.end() ? field : column->second, where_);
  if (!checked.ok()) return checked;
  return std::move(value);
}

absl::StatusOr<Json> SampleFields::TakeVariables() const {
  Json variables = Json::object();
  for (const char* key : {"tools", "documents"}) {
    Json* const value = Find(key);
    if (value == nullptr) continue;
    if (!value->is_array()) return Invalid(absl::StrCat(Name(key), " must be a list, not ", JsonTypeName(*value)));
    variables[key] = std::move(*value);
  }
  if (const Json* const extra = Find("chat_template_kwargs"); extra != nullptr) {
    if (!extra->is_object()) {
      return Invalid(absl::StrCat(Name("chat_template_kwargs"), " must be an object, not ", JsonTypeName(*extra)));
    }
    variables.update(*extra);
  }
  return variables;
}

}  // namespace temper
