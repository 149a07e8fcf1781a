// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

// Something that is wrong in a YAML document.
struct YamlProblem {
  int line = 0;      // from 1; 0 when the value has no line
  std::string path;  // the field, for example "training.schedule"; empty for the document itself
  std::string text;  // what is wrong and what to write
};

// Fills a protobuf message from YAML, of which JSON is a part, by the message's own schema. Closer to what people write
// than protobuf's JSON reader, and exact about what is wrong:
//   - fields go by their proto names; protobuf's lowerCamelCase spelling is understood too
//   - enum values may be written in short, in any case: `cosine` for SCHEDULE_COSINE
//   - whole numbers may be written as 1e6, or quoted, as protobuf's JSON does
//   - an unknown field or enum value brings a suggestion; a field that is given twice is a problem, as are two members
//     of one `oneof`, and a field without a value
// All problems are collected, in the order of the document. Understands the kinds of fields that temper's job schema
// has: messages, enums, strings, booleans, int32, int64, float and double, lists of them, and
// maps from texts to texts, which are merged.
class YamlMessageReader {
 public:
  // Merges a map into `message`. `path` is prefixed to the paths of problems.
  void ReadMessage(const YAML::Node& node, const std::string& path, google::protobuf::Message& message);

  // Sets the one field that a dotted path names, as if it had stood in the document: what it replaces is gone.
  void SetField(std::string_view dotted_path, const YAML::Node& value, google::protobuf::Message& message);

  const std::vector<YamlProblem>& problems() const { return problems_; }
  // Where each field that was read stood, by path.
  const std::map<std::string, int>& lines() const { return lines_; }

 private:
  void ReadField(const YAML::Node& value, const std::string& path, const google::protobuf::FieldDescriptor& field,
                 google::protobuf::Message& message);
  void ReadMap(const YAML::Node& value, const std::string& path, const google::protobuf::FieldDescriptor& field,
               google::protobuf::Message& message);
  void SetMapEntry(const std::string& key, const YAML::Node& value, const std::string& path,
                   const google::protobuf::FieldDescriptor& field, google::protobuf::Message& message);
  void ReadScalar(const YAML::Node& value, const std::string& path, const google::protobuf::FieldDescriptor& field,
                  google::protobuf::Message& message);
  const google::protobuf::FieldDescriptor* FindField(const google::protobuf::Descriptor& type, const std::string& name,
                                                     const std::string& path, int line);
  void Problem(int line, std::string path, std::string text);

  std::vector<YamlProblem> problems_;
  std::map<std::string, int> lines_;
};

}  // namespace temper
