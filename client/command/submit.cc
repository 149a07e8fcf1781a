// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/command/command_line.h"
#include "client/command/create_job.h"
#include "client/command/watch.h"

namespace temper::command {
namespace {

struct SubmitOptions {
  JobFileOptions file;
  std::string job_id;
  std::string request_id;
  std::string resume_from;
  std::string profile;
  bool watch = false;
  bool validate_only = false;
  bool skip_preflight = false;
};

// "3-5" or "3", as a change of the job file.
absl::StatusOr<std::string> ProfileOverride(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, '-');
  int64_t first = 0, last = 0;
  if (parts.size() > 2 || !absl::SimpleAtoi(parts.front(), &first) || !absl::SimpleAtoi(parts.back(), &last) ||
      first < 1 || last < first) {
    return absl::InvalidArgumentError(
        absl::StrCat("--profile ", text, ": must be a step or a range, such as 3 or 3-5"));
  }
  return absl::StrCat("profile={first_step: ", first, ", steps: ", last - first + 1, "}");
}

ExitCode Submit(const Context& context, const SubmitOptions& options) {
  JobFileOptions file = options.file;
  if (!options.resume_from.empty()) file.overrides.push_back(absl::StrCat("resume_from=", options.resume_from));
  if (options.skip_preflight) file.overrides.push_back("skip_preflight=true");
  if (!options.profile.empty()) {
    const auto profile = ProfileOverride(options.profile);
    if (!profile.ok()) {
      Fail(context, profile.status());
      return kExitUsage;
    }
    file.overrides.push_back(*profile);
  }
  v1::CreateJobRequest request;
  request.set_job_id(options.job_id);
  request.set_request_id(options.request_id);
  request.set_validate_only(options.validate_only);
  const auto job = CreateJob(context, file, std::move(request));
  if (!job.ok()) return Fail(context, job.status());

  if (context.json) {
    PrintJson(*job);
  } else if (options.validate_only) {
    std::printf("The job would be accepted.\n");
  } else {
    std::printf("Created %s\n", job->name().c_str());
  }
  if (options.validate_only) return kExitOk;
  std::fflush(stdout);
  if (options.watch) return Watch(context, job->name());
  if (!context.json) std::printf("Follow it: temper watch %s\n", ToJobId(job->name()).c_str());
  return kExitOk;
}

}  // namespace

void AddSubmit(CLI::App& app, CommandLine& line) {
  auto options = std::make_shared<SubmitOptions>();
  CLI::App* command = app.add_subcommand("submit", "Send a job to the server");
  command->fallthrough();
  AddJobFile(*command, options->file);
  command->add_option("--job-id", options->job_id, "Id of the job (a-z, 0-9, hyphen); default: the server chooses");
  command->add_option("--request-id", options->request_id,
                      "A UUID that makes the command safe to repeat: the same id and job create one job");
  command->add_option("--resume-from", options->resume_from,
                      "Go on from this checkpoint of any job: the URI or path of its directory");
  command->add_option("--profile", options->profile,
                      "Record these steps, as 3 or 3-5: a Chrome trace below OUTPUT/JOB/profile-eN");
  command->add_flag("--watch", options->watch, "Follow the job until it ends");
  command->add_flag("--skip-preflight", options->skip_preflight, "Train without having looked at model and data first");
  command->add_flag("--validate-only", options->validate_only, "Check the job, but create nothing");
  command->footer(
      "The fields of a job file are those of proto/temper/v1/job.proto; client/examples/sft.yaml explains the usual "
      "ones.\n"
      "A relative model.uri, data.uri or output.uri is meant relative to the job file, in --set and on standard input\n"
      "relative to the working directory.\n\n"
      "Examples:\n"
      "  temper submit sft.yaml --watch\n"
      "  temper submit sft.yaml --upload --server trainer:8470\n"
      "  temper submit sft.yaml --set training.epochs=3 --set lora='{rank: 8}' --job-id my-first-job\n"
      "  generate-job | temper submit - --output json");
  command->callback(
      [options, &line] { line.action = [options](const Context& context) { return Submit(context, *options); }; });
}

}  // namespace temper::command
