// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/command/command_line.h"
#include "client/command/create_job.h"
#include "client/command/format.h"
#include "client/command/preflight_view.h"
#include "client/follow_job.h"

namespace temper::command {
namespace {

// Waits for the end of a job that only looks; the job as it is then.
absl::StatusOr<v1::Job> Wait(const Context& context, const std::string& name) {
  StatusLine status(context.terminal);
  status.Draw("looking at model and data …");
  const auto ignore = [](const v1::JobEvent&) { return true; };
  const absl::Status followed = FollowJob(context.client, name, {}, ignore, [](const absl::Status&) {});
  if (!followed.ok()) return followed;
  return context.client.GetJob(name);
}

ExitCode Preflight(const Context& context, const JobFileOptions& options) {
  v1::CreateJobRequest request;
  request.set_preflight_only(true);
  const auto created = CreateJob(context, options, std::move(request));
  if (!created.ok()) return Fail(context, created.status());
  const auto job = Wait(context, created->name());
  if (!job.ok()) {
    // Ctrl-C: nobody waits for it any more.
    (void)context.client.WithoutStop().CancelJob(created->name());
    return Fail(context, job.status());
  }
  // It was a question, not a job.
  (void)context.client.DeleteJob(created->name());
  if (job->state() != v1::JOB_STATE_SUCCEEDED) {
    std::fprintf(stderr, "temper: %s: %s\n", CauseName(job->cause()).c_str(), Printable(job->reason()).c_str());
    return ExitCodeOf(job->state());
  }
  if (context.json) {
    PrintJson(job->preflight());
  } else {
    std::fputs(PreflightText(job->preflight(), context.terminal).c_str(), stdout);
  }
  return kExitOk;
}

}  // namespace

void AddPreflight(CLI::App& app, CommandLine& line) {
  auto options = std::make_shared<JobFileOptions>();
  CLI::App* command = app.add_subcommand("preflight", "Look at a job's model and data without training");
  command->fallthrough();
  AddJobFile(*command, *options);
  command->footer(
      "Shows the first samples as the model would see them, with what is learned in colour, counts tokens and steps,\n"
      "estimates memory, and checks what usually goes wrong. The server's machine looks, as it does before every "
      "job.\n\n"
      "Examples:\n"
      "  temper preflight sft.yaml\n"
      "  temper preflight sft.yaml --set data.train_on=last_turn --output json | jq .checks");
  command->callback(
      [options, &line] { line.action = [options](const Context& context) { return Preflight(context, *options); }; });
}

}  // namespace temper::command
