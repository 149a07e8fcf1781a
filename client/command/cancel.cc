// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "client/command/command_line.h"
#include "client/command/format.h"

namespace temper::command {
namespace {

ExitCode Cancel(const Context& context, const std::string& name) {
  const auto job = context.client.CancelJob(name);
  if (!job.ok()) return Fail(context, job.status());
  if (context.json) {
    PrintJson(*job);
  } else {
    std::printf("%s is %s\n", job->name().c_str(), StateName(job->state()).c_str());
  }
  return kExitOk;
}

}  // namespace

void AddCancel(CLI::App& app, CommandLine& line) {
  auto job = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("cancel", "Stop a job for good");
  command->fallthrough();
  command->add_option("job", *job, "The job: ID or jobs/ID")->required();
  command->footer(
      "Returns at once; the job is CANCELLED when its processes are gone. A job that was cancelled before stays so.\n\n"
      "Examples:\n"
      "  temper cancel smollm2-k3f9x2");
  command->callback([job, &line] { line.action = [job](const Context& context) { return Cancel(context, *job); }; });
}

}  // namespace temper::command
