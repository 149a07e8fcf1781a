// SPDX-License-Identifier: Apache-2.0
#include "client/job_file.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/yaml_message.h"

namespace temper {
namespace {

constexpr size_t kMaxFileSize = 1 << 20;
constexpr size_t kMaxProblemsShown = 20;

std::string Where(const std::string& file, int line, const std::string& field_path) {
  std::string where = line > 0 ? absl::StrCat(file, ":", line) : file;
  if (!field_path.empty()) absl::StrAppend(&where, ": ", field_path);
  return where;
}

// JSON writes characters beyond the basic plane as two escapes, \ud83d\ude00, which YAML does not know; YAML has
// \U0001f600. Everything else of JSON is YAML.
std::string WithoutSurrogatePairs(std::string_view json) {
  const auto escape_at = [&](size_t i, uint32_t low, uint32_t high, uint32_t& value) {
    if (i + 6 > json.size() || json.substr(i, 2) != "\\u") return false;
    const std::string digits(json.substr(i + 2, 4));
    return absl::SimpleHexAtoi(digits, &value) && value >= low && value <= high;
  };
  std::string out;
  for (size_t i = 0; i < json.size(); ++i) {
    uint32_t first = 0, second = 0;
    if (escape_at(i, 0xD800, 0xDBFF, first) && escape_at(i + 6, 0xDC00, 0xDFFF, second)) {
      const uint32_t character = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
      absl::StrAppend(&out, "\\U", absl::Hex(character, absl::kZeroPad8));
      i += 11;
    } else if (json[i] == '\\' && i + 1 < json.size()) {
      out.append(json.substr(i++, 2));  // so that the second half of \\ starts nothing
    } else {
      out.push_back(json[i]);
    }
  }
  return out;
}

void ResolveUris(const std::filesystem::path& directory, v1::JobSpec& spec) {
  if (spec.has_model()) spec.mutable_model()->set_uri(AbsoluteUri(spec.model().uri(), directory));
  if (spec.has_data()) spec.mutable_data()->set_uri(AbsoluteUri(spec.data().uri(), directory));
  if (spec.has_data()) {
    for (v1::DataSource::Source& source : *spec.mutable_data()->mutable_sources()) {
      source.set_uri(AbsoluteUri(source.uri(), directory));
    }
  }
  if (!spec.validation().uri().empty()) {
    spec.mutable_validation()->set_uri(AbsoluteUri(spec.validation().uri(), directory));
  }
  if (spec.method().has_distillation()) {
    v1::Distillation& distillation = *spec.mutable_method()->mutable_distillation();
    distillation.set_teacher(AbsoluteUri(distillation.teacher(), directory));
  }
  if (!spec.lora().adapter().empty()) spec.mutable_lora()->set_adapter(AbsoluteUri(spec.lora().adapter(), directory));
  if (!spec.resume_from().empty()) spec.set_resume_from(AbsoluteUri(spec.resume_from(), directory));
  if (spec.has_output()) spec.mutable_output()->set_uri(AbsoluteUri(spec.output().uri(), directory));
}

absl::Status ProblemStatus(std::vector<std::string> problems) {
  if (problems.empty()) return absl::OkStatus();
  const size_t hidden = problems.size() > kMaxProblemsShown ? problems.size() - kMaxProblemsShown : 0;
  problems.resize(problems.size() - hidden);
  if (hidden > 0) problems.push_back(absl::StrCat("and ", hidden, " more"));
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

// Reads past a document. YAML::LoadAll() never ends on some texts, so documents are taken one by one.
class Skip : public YAML::EventHandler {
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

bool HasSecondDocument(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  Skip skip;
  return parser.HandleNextDocument(skip) && parser.HandleNextDocument(skip);
}

// The document's root, or the problem with its line.
absl::StatusOr<YAML::Node> ParseYaml(std::string_view text, const std::string& name) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && text[first] == '{';
  try {
    const std::string yaml = json ? WithoutSurrogatePairs(text) : std::string(text);
    const YAML::Node root = YAML::Load(yaml);
    if (root.IsNull()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": is empty; client/examples/sft.yaml is a job to start from"));
    }
    if (HasSecondDocument(yaml)) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": holds more than one document; one job per file"));
    }
    return root;
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat(Where(name, e.mark.is_null() ? 0 : e.mark.line + 1, ""), ": is not valid YAML or JSON: ", e.msg));
  }
}

void ApplyOverride(const std::string& override_text, YamlMessageReader& reader, v1::JobSpec& spec,
                   std::vector<std::string>& problems) {
  const auto bad = [&](const std::string& text) {
    problems.push_back(absl::StrCat("--set ", override_text, ": ", text));
  };
  const size_t equals = override_text.find('=');
  if (equals == std::string::npos || equals == 0) return bad("expected FIELD=VALUE, for example training.steps=20");
  try {
    const size_t before = reader.problems().size();
    reader.SetField(override_text.substr(0, equals), YAML::Load(override_text.substr(equals + 1)), spec);
    for (size_t i = before; i < reader.problems().size(); ++i) {
      bad(absl::StrCat(reader.problems()[i].path, ": ", reader.problems()[i].text));
    }
  } catch (const YAML::Exception& e) {
    bad(absl::StrCat("the value is not valid YAML: ", e.msg));
  }
}

}  // namespace

std::string AbsoluteUri(const std::string& uri, const std::filesystem::path& directory) {
  if (uri.empty() || uri.front() == '/' || uri.find("://") != std::string::npos) return uri;
  const char* home = std::getenv("HOME");
  if ((uri == "~" || uri.starts_with("~/")) && home != nullptr) return absl::StrCat(home, uri.substr(1));
  return (std::filesystem::absolute(directory) / uri).lexically_normal().string();
}

std::string JobFile::Where(std::string_view field_path) const {
  const std::string path(field_path);
  const auto line = lines.find(path);
  return temper::Where(name, line == lines.end() ? 0 : line->second, path);
}

absl::StatusOr<JobFile> ParseJobFile(std::string_view text, const std::string& name, const std::string& directory,
                                     const std::vector<std::string>& overrides) {
  auto root = ParseYaml(text, name);
  if (!root.ok()) return root.status();

  JobFile file;
  file.name = name;
  YamlMessageReader reader;
  reader.ReadMessage(*root, "", file.spec);
  std::vector<std::string> problems;
  for (const YamlProblem& problem : reader.problems()) {
    problems.push_back(absl::StrCat(Where(name, problem.line, problem.path), ": ", problem.text));
  }
  ResolveUris(directory, file.spec);

  for (const std::string& text : overrides) ApplyOverride(text, reader, file.spec, problems);
  ResolveUris(std::filesystem::current_path(), file.spec);
  file.lines = reader.lines();
  if (auto status = ProblemStatus(std::move(problems)); !status.ok()) return status;
  return file;
}

absl::StatusOr<JobFile> ReadJobFile(const std::string& path, const std::vector<std::string>& overrides) {
  const bool standard_input = path == "-";
  std::ifstream stream;
  if (!standard_input) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": is a directory, not a job file"));
    }
    stream.open(path, std::ios::binary);
    if (!stream) {
      const int code = errno;
      const std::string message = absl::StrCat(path, ": can't be read: ", std::strerror(code));
      return code == ENOENT ? absl::NotFoundError(message) : absl::InvalidArgumentError(message);
    }
  }
  std::istream& in = standard_input ? std::cin : stream;
  std::string text(kMaxFileSize + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMaxFileSize) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is larger than 1 MiB; is it really a job file?"));
  }
  const std::string name = standard_input ? "standard input" : path;
  const std::string directory =
      standard_input ? std::filesystem::current_path().string() : std::filesystem::path(path).parent_path().string();
  return ParseJobFile(text, name, directory.empty() ? "." : directory, overrides);
}

}  // namespace temper
