// SPDX-License-Identifier: Apache-2.0
// cancel, pause, resume, delete: one call about one job.
#include <cstdio>
#include <memory>
#include <string>

#include "client/command/command_line.h"
#include "client/command/format.h"

namespace temper::command {
namespace {

using JobCall = absl::StatusOr<v1::Job> (TrainingClient::*)(std::string_view) const;

ExitCode Call(const Context& context, JobCall call, const std::string& name) {
  const auto job = (context.client.*call)(name);
  if (!job.ok()) return Fail(context, job.status());
  if (context.json) {
    PrintJson(*job);
  } else {
    std::printf("%s is %s\n", job->name().c_str(), StateName(job->state()).c_str());
  }
  return kExitOk;
}

ExitCode Delete(const Context& context, const std::string& name) {
  if (const auto status = context.client.DeleteJob(name); !status.ok()) return Fail(context, status);
  if (!context.json)
    std::printf("%s is forgotten; what it wrote to its output is still there\n", ToJobName(name).c_str());
  return kExitOk;
}

// A subcommand that takes a job and nothing else.
void Add(CLI::App& app, CommandLine& line, const char* name, const char* summary, const std::string& footer,
         ExitCode (*run)(const Context&, const std::string&)) {
  auto job = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(name, summary);
  command->fallthrough();
  command->add_option("job", *job, "The job: ID or jobs/ID")->required();
  command->footer(footer + "\n\nExamples:\n  temper " + name + " smollm2-k3f9x2");
  command->callback(
      [job, run, &line] { line.action = [job, run](const Context& context) { return run(context, *job); }; });
}

}  // namespace

void AddCancel(CLI::App& app, CommandLine& line) {
  Add(app, line, "cancel", "Stop a job for good",
      "Returns at once; the job is CANCELLED when its processes are gone. A job that was cancelled before stays so.",
      [](const Context& context, const std::string& job) { return Call(context, &TrainingClient::CancelJob, job); });
}

void AddPause(CLI::App& app, CommandLine& line) {
  Add(app, line, "pause", "Stop a job until it is resumed",
      "A running job finishes its step and commits a checkpoint first. Returns at once; the job is PAUSED when its\n"
      "processes are gone, and gives its place to the next in the queue.",
      [](const Context& context, const std::string& job) { return Call(context, &TrainingClient::PauseJob, job); });
}

void AddResume(CLI::App& app, CommandLine& line) {
  Add(app, line, "resume", "Let a paused job go on from its newest checkpoint",
      "It takes its place in the queue again.",
      [](const Context& context, const std::string& job) { return Call(context, &TrainingClient::ResumeJob, job); });
}

void AddDelete(CLI::App& app, CommandLine& line) {
  Add(app, line, "delete", "Forget a job that has ended",
      "Its record, events and metrics go; its checkpoints and its export stay where they are.", Delete);
}

}  // namespace temper::command
