// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "temper/v1/job.pb.h"

namespace temper {

// A job as a person writes it: temper.v1.JobSpec as YAML or JSON (client/yaml_message.h says how freely).
struct JobFile {
  std::string name;  // for messages: the file's path, or "standard input"
  v1::JobSpec spec;
  // The line of every field that stands in the file, by dotted path.
  std::map<std::string, int> lines;

  // "sft.yaml:12: training.steps", or without a line when the field does not stand in the file. For problems that only
  // the server can see.
  std::string Where(std::string_view field_path) const;
};

// Reads `path`, or standard input when it is "-", and then applies `overrides` ("training.steps=20"; the value is
// YAML), in order.
//
// A relative model.uri, data.uri or output.uri is made absolute, for the server does not know where the user stands:
// against the job file's directory when it stands in the file, against the working directory when it comes from
// standard input or an override. "~/" is the user's home.
//
// NOT_FOUND: no such file. INVALID_ARGUMENT: a message with a line per problem, each with file, line, field and what to
// write instead.
absl::StatusOr<JobFile> ReadJobFile(const std::string& path, const std::vector<std::string>& overrides = {});

// The same for text that is already in memory; relative URIs are resolved against `directory`.
absl::StatusOr<JobFile> ParseJobFile(std::string_view text, const std::string& name, const std::string& directory,
                                     const std::vector<std::string>& overrides = {});

// A URI or an absolute path as it is; a relative path against `directory`; "~/" is the user's home.
std::string AbsoluteUri(const std::string& uri, const std::filesystem::path& directory);

}  // namespace temper
