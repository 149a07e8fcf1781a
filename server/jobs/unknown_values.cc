// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/unknown_values.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/unknown_field_set.h"

namespace temper {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

void CheckEnum(int value, const FieldDescriptor& field, const std::string& path, std::vector<FieldViolation>& found) {
  if (field.enum_type()->FindValueByNumber(value) != nullptr) return;
  found.push_back({path, absl::StrCat("has the value ", value, ", which this server does not know")});
}

void Walk(const Message& message, const std::string& path, std::vector<FieldViolation>& found) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count(); ++i) {
    found.push_back({path, absl::StrCat("has a field of number ", unknown.field(i).number(),
                                        ", which this server does not know: it may be older than the client")});
  }
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string child = absl::StrCat(path, ".", field->name());
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const bool is_enum = field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM;
    if (!field->is_repeated()) {
      if (is_message) Walk(reflection.GetMessage(message, field), child, found);
      if (is_enum) CheckEnum(reflection.GetEnumValue(message, field), *field, child, found);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      const std::string element = absl::StrCat(child, "[", i, "]");
      if (is_message) Walk(reflection.GetRepeatedMessage(message, field, i), element, found);
      if (is_enum) CheckEnum(reflection.GetRepeatedEnumValue(message, field, i), *field, element, found);
    }
  }
}

}  // namespace

std::vector<FieldViolation> UnknownValues(const Message& message, const std::string& path) {
  std::vector<FieldViolation> found;
  Walk(message, path, found);
  return found;
}

}  // namespace temper
