// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "client/command/command_line.h"
#include "client/command/create_job.h"
#include "client/command/preflight_view.h"
#include "client/command/question.h"

namespace temper::command {
namespace {

ExitCode Preflight(const Context& context, const JobFileOptions& options) {
  v1::CreateJobRequest request;
  request.set_preflight_only(true);
  const auto created = CreateJob(context, options, std::move(request));
  if (!created.ok()) return Fail(context, created.status());
  const auto job = WaitForAnswer(context, created->name(), "looking at model and data …");
  if (!job.ok()) return Fail(context, job.status());
  if (job->state() != v1::JOB_STATE_SUCCEEDED) return FailWith(*job);
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
