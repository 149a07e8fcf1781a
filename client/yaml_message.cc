// SPDX-License-Identifier: Apache-2.0
#include "client/yaml_message.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/suggestion.h"

namespace temper {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

int LineOf(const YAML::Node& node) { return node.Mark().is_null() ? 0 : node.Mark().line + 1; }

std::string Join(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}

// `SCHEDULE_` of enum Schedule { SCHEDULE_UNSPECIFIED, … }, by buf's rule for the name of the zero value.
std::string EnumPrefix(const EnumDescriptor& type) {
  const std::string& zero = type.value(0)->name();
  constexpr std::string_view kSuffix = "UNSPECIFIED";
  return zero.ends_with(kSuffix) ? zero.substr(0, zero.size() - kSuffix.size()) : "";
}

// The names that people write: lower case, without the prefix and without "unspecified".
std::vector<std::string> ShortEnumNames(const EnumDescriptor& type) {
  const std::string prefix = EnumPrefix(type);
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    const std::string& name = type.value(i)->name();
    if (type.value(i)->number() == 0 && !prefix.empty()) continue;
    names.push_back(absl::AsciiStrToLower(name.starts_with(prefix) ? name.substr(prefix.size()) : name));
  }
  return names;
}

const EnumValueDescriptor* FindEnumValue(const EnumDescriptor& type, const std::string& text) {
  std::string name = absl::AsciiStrToUpper(text);
  for (char& c : name) c = c == '-' ? '_' : c;
  if (const auto* value = type.FindValueByName(name)) return value;
  return type.FindValueByName(absl::StrCat(EnumPrefix(type), name));
}

std::vector<std::string> FieldNames(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

// "a whole number", for messages.
std::string ExpectedKind(const FieldDescriptor& field) {
  if (field.is_map()) return "a map of names to names";
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      return "a whole number";
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::StrCat("one of ", absl::StrJoin(ShortEnumNames(*field.enum_type()), ", "));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return absl::StrCat("a map with ", absl::StrJoin(FieldNames(*field.message_type()), ", "));
    default:
      return "text";
  }
}

std::string Described(const YAML::Node& node) {
  if (node.IsMap()) return "a map";
  if (node.IsSequence()) return "a list";
  if (node.IsNull()) return "nothing";
  std::string text = node.Scalar();
  if (text.size() > 60) text = absl::StrCat(text.substr(0, 57), "...");
  return absl::StrCat("'", text, "'");
}

// 12, "12", 1e6 and 12.0 are whole; 1.5 is not.
std::optional<int64_t> ParseWhole(const std::string& text) {
  int64_t whole = 0;
  if (absl::SimpleAtoi(text, &whole)) return whole;
  double number = 0;
  constexpr double kExact = 9007199254740992.0;  // 2^53: beyond it doubles skip whole numbers
  if (!absl::SimpleAtod(text, &number) || std::trunc(number) != number || std::abs(number) > kExact) return {};
  return static_cast<int64_t>(number);
}

std::optional<bool> ParseBool(const std::string& text) {
  const std::string lower = absl::AsciiStrToLower(text);
  if (lower == "true" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "no" || lower == "off") return false;
  return {};
}

}  // namespace

void YamlMessageReader::Problem(int line, std::string path, std::string text) {
  problems_.push_back({line, std::move(path), std::move(text)});
}

const FieldDescriptor* YamlMessageReader::FindField(const Descriptor& type, const std::string& name,
                                                    const std::string& path, int line) {
  if (const auto* field = type.FindFieldByName(name)) return field;
  if (const auto* field = type.FindFieldByCamelcaseName(name)) return field;
  const std::vector<std::string> names = FieldNames(type);
  const auto meant = ClosestName(name, names);
  std::string text = "unknown field; ";
  if (meant) {
    absl::StrAppend(&text, "did you mean '", *meant, "'?");
  } else if (names.empty()) {
    absl::StrAppend(&text, "nothing can be set here");
  } else {
    absl::StrAppend(&text, "possible here: ", absl::StrJoin(names, ", "));
  }
  Problem(line, Join(path, name), std::move(text));
  return nullptr;
}

void YamlMessageReader::ReadMessage(const YAML::Node& node, const std::string& path, Message& message) {
  if (!node.IsMap()) {
    return Problem(LineOf(node), path,
                   absl::StrCat("expected a map with ", absl::StrJoin(FieldNames(*message.GetDescriptor()), ", "),
                                ", found ", Described(node)));
  }
  std::set<const FieldDescriptor*> seen;
  for (const auto& entry : node) {
    const int line = LineOf(entry.first);
    if (!entry.first.IsScalar()) {
      Problem(line, path, absl::StrCat("expected the name of a field, found ", Described(entry.first)));
      continue;
    }
    const FieldDescriptor* field = FindField(*message.GetDescriptor(), entry.first.Scalar(), path, line);
    if (field == nullptr) continue;
    const std::string field_path = Join(path, field->name());
    if (!seen.insert(field).second) {
      Problem(line, field_path, "is given twice; remove one of the two");
      continue;
    }
    if (const auto* oneof = field->real_containing_oneof()) {
      const auto* other = message.GetReflection()->GetOneofFieldDescriptor(message, oneof);
      if (other != nullptr && other != field) {
        Problem(line, field_path,
                absl::StrCat("excludes '", other->name(), "', which is given too; remove one of the two"));
        continue;
      }
    }
    lines_[field_path] = line;
    ReadField(entry.second, field_path, *field, message);
  }
}

void YamlMessageReader::SetField(std::string_view dotted_path, const YAML::Node& value, Message& message) {
  const std::vector<std::string> names = absl::StrSplit(std::string(dotted_path), '.');
  Message* parent = &message;
  std::string path;
  for (size_t i = 0; i < names.size(); ++i) {
    const FieldDescriptor* field = FindField(*parent->GetDescriptor(), names[i], path, 0);
    if (field == nullptr) return;
    path = Join(path, field->name());
    if (i + 1 == names.size()) {
      parent->GetReflection()->ClearField(parent, field);
      lines_.erase(path);
      return ReadField(value, path, *field, *parent);
    }
    if (field->is_map()) {
      // The rest is the key, dots and all.
      const std::string key = absl::StrJoin(names.begin() + i + 1, names.end(), ".");
      return SetMapEntry(key, value, Join(path, key), *field, *parent);
    }
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) {
      return Problem(0, path, absl::StrCat("has no field '", names[i + 1], "': it is ", ExpectedKind(*field)));
    }
    parent = parent->GetReflection()->MutableMessage(parent, field);
  }
}

void YamlMessageReader::ReadField(const YAML::Node& value, const std::string& path, const FieldDescriptor& field,
                                  Message& message) {
  const bool is_message = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  if (value.IsNull()) {
    // YAML places what is absent on the line after.
    const auto line = lines_.find(path);
    return Problem(line == lines_.end() ? LineOf(value) : line->second, path,
                   is_message ? "has no value; write {} to take it with its defaults, or remove the line"
                              : absl::StrCat("has no value; expected ", ExpectedKind(field), ", or remove the line"));
  }
  if (!field.is_repeated()) {
    if (is_message) return ReadMessage(value, path, *message.GetReflection()->MutableMessage(&message, &field));
    return ReadScalar(value, path, field, message);
  }
  if (field.is_map()) return ReadMap(value, path, field, message);
  // A list of one may be written without brackets.
  if (!value.IsSequence()) return ReadScalar(value, path, field, message);
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string item_path = absl::StrCat(path, "[", i, "]");
    if (is_message) {
      ReadMessage(value[i], item_path, *message.GetReflection()->AddMessage(&message, &field));
    } else {
      ReadScalar(value[i], item_path, field, message);
    }
  }
}

void YamlMessageReader::ReadMap(const YAML::Node& value, const std::string& path, const FieldDescriptor& field,
                                Message& message) {
  if (!value.IsMap()) {
    return Problem(LineOf(value), path,
                   absl::StrCat("expected ", ExpectedKind(field), ", like {name: name}, found ", Described(value)));
  }
  std::set<std::string> seen;
  for (const auto& entry : value) {
    const int line = LineOf(entry.first);
    if (!entry.first.IsScalar()) {
      Problem(line, path, absl::StrCat("expected a name, found ", Described(entry.first)));
      continue;
    }
    const std::string& key = entry.first.Scalar();
    const std::string entry_path = Join(path, key);
    if (!seen.insert(key).second) {
      Problem(line, entry_path, "is given twice; remove one of the two");
      continue;
    }
    lines_[entry_path] = line;
    SetMapEntry(key, entry.second, entry_path, field, message);
  }
}

void YamlMessageReader::SetMapEntry(const std::string& key, const YAML::Node& value, const std::string& path,
                                    const FieldDescriptor& field, Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const FieldDescriptor& key_field = *field.message_type()->map_key();
  Message* entry = nullptr;
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    Message* const present = reflection.MutableRepeatedMessage(&message, &field, i);
    if (present->GetReflection()->GetString(*present, &key_field) == key) entry = present;
  }
  if (entry == nullptr) {
    entry = reflection.AddMessage(&message, &field);
    entry->GetReflection()->SetString(entry, &key_field, key);
  }
  ReadField(value, path, *field.message_type()->map_value(), *entry);
}

void YamlMessageReader::ReadScalar(const YAML::Node& value, const std::string& path, const FieldDescriptor& field,
                                   Message& message) {
  const auto* reflection = message.GetReflection();
  const auto mistyped = [&](const std::string& hint = "") {
    Problem(LineOf(value), path, absl::StrCat("expected ", ExpectedKind(field), ", found ", Described(value), hint));
  };
  if (!value.IsScalar()) return mistyped();
  const std::string& text = value.Scalar();
  // Singular and repeated fields differ only in Set and Add.
  const auto store = [&](auto set, auto add, auto typed) {
    if (field.is_repeated()) {
      (reflection->*add)(&message, &field, typed);
    } else {
      (reflection->*set)(&message, &field, typed);
    }
  };
  using R = google::protobuf::Reflection;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return store(&R::SetString, &R::AddString, text);
    case FieldDescriptor::CPPTYPE_BOOL: {
      const auto parsed = ParseBool(text);
      if (!parsed) return mistyped();
      return store(&R::SetBool, &R::AddBool, *parsed);
    }
    case FieldDescriptor::CPPTYPE_INT32: {
      const auto parsed = ParseWhole(text);
      if (!parsed) return mistyped();
      if (*parsed < std::numeric_limits<int32_t>::min() || *parsed > std::numeric_limits<int32_t>::max()) {
        return mistyped(", which does not fit into 32 bits");
      }
      return store(&R::SetInt32, &R::AddInt32, static_cast<int32_t>(*parsed));
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      const auto parsed = ParseWhole(text);
      if (!parsed) return mistyped();
      return store(&R::SetInt64, &R::AddInt64, *parsed);
    }
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double parsed = 0;
      if (!absl::SimpleAtod(text, &parsed) || !std::isfinite(parsed)) return mistyped();
      if (field.cpp_type() == FieldDescriptor::CPPTYPE_FLOAT) {
        return store(&R::SetFloat, &R::AddFloat, static_cast<float>(parsed));
      }
      return store(&R::SetDouble, &R::AddDouble, parsed);
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const EnumValueDescriptor* parsed = FindEnumValue(*field.enum_type(), text);
      if (parsed == nullptr) {
        const auto meant = ClosestName(text, ShortEnumNames(*field.enum_type()));
        return mistyped(meant ? absl::StrCat("; did you mean '", *meant, "'?") : "");
      }
      return store(&R::SetEnum, &R::AddEnum, parsed);
    }
    default:
      return Problem(LineOf(value), path, "has a type that job files can't carry; this is a bug in temper");
  }
}

}  // namespace temper
