// SPDX-License-Identifier: Apache-2.0
#include "client/command/create_job.h"

#include <cstdio>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/command/format.h"
#include "client/job_file.h"
#include "client/uploader.h"
#include "common/rpc/status.h"

namespace temper::command {
namespace {

// Replaces a violation's path by the place in the file where the user can mend it.
absl::Status WithFileLines(const absl::Status& status, const JobFile& file) {
  const std::vector<FieldViolation> violations = FieldViolationsOf(status);
  if (violations.empty()) return status;
  std::string message = absl::StrCat("the server refused the job:");
  for (const FieldViolation& violation : violations) {
    constexpr std::string_view kSpec = "spec.";
    std::string_view field = violation.field;
    if (field.starts_with("job.")) field.remove_prefix(4);
    const bool in_file = field.starts_with(kSpec);
    if (in_file) field.remove_prefix(kSpec.size());
    absl::StrAppend(&message, "\n", in_file ? file.Where(field) : std::string(field), ": ", violation.description);
  }
  return absl::Status(status.code(), message);
}

absl::Status Upload(const Context& context, JobFile& file) {
  StatusArea status(context.terminal);
  const auto result = UploadData(
      context.client, file.spec, [&](std::string_view field) { return file.Where(field); },
      [&](const UploadProgress& state) {
        if (context.json) return;
        status.Draw({absl::StrCat("sending ", Printable(state.path), ": ", HumanBytes(state.sent_bytes), " of ",
                                  HumanBytes(state.total_bytes))});
      },
      [&](const absl::Status& why) {
        status.Clear();
        PrintWaiting(why);
      });
  status.Clear();
  if (!result.ok()) return result.status();
  if (!context.json) {
    std::fprintf(stderr, "Uploaded %s (%s sent)\n", HumanBytes(result->bytes).c_str(),
                 HumanBytes(result->sent_bytes).c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void AddJobFile(CLI::App& command, JobFileOptions& options) {
  command.add_option("file", options.file, "The job as YAML or JSON; '-' reads standard input")
      ->required()
      ->type_name("FILE");
  command.add_option("--set", options.overrides, "Set FIELD=VALUE, for example training.steps=20 (repeatable)")
      ->allow_extra_args(false)
      ->take_all();
  command.add_flag("--upload", options.upload,
                   "Send the files that data and validation name from this machine to the server");
}

absl::StatusOr<v1::Job> CreateJob(const Context& context, const JobFileOptions& options, v1::CreateJobRequest request) {
  auto file = ReadJobFile(options.file, options.overrides);
  if (!file.ok()) return absl::InvalidArgumentError(file.status().message());
  if (options.upload && !request.validate_only()) {
    if (absl::Status status = Upload(context, *file); !status.ok()) return status;
  }
  *request.mutable_job()->mutable_spec() = file->spec;
  auto job = context.client.CreateJob(std::move(request));
  if (!job.ok()) return WithFileLines(job.status(), *file);
  return job;
}

}  // namespace temper::command
