// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/command/command_line.h"
#include "client/command/event_view.h"
#include "client/follow_job.h"

namespace temper::command {
namespace {

struct LogsOptions {
  std::string job;
  bool follow = false;
};

ExitCode Logs(const Context& context, const LogsOptions& options) {
  // Without --follow: what there is now.
  const auto job = context.client.GetJob(options.job);
  if (!job.ok()) return Fail(context, job.status());
  if (!options.follow && job->last_sequence() == 0) return kExitOk;
  const auto show = [&](const v1::JobEvent& event) {
    if (event.has_log()) {
      if (context.json) {
        PrintJson(event);
      } else {
        std::printf("%s\n", LogText(event, context.terminal).c_str());
        std::fflush(stdout);
      }
    }
    return options.follow || event.sequence() < job->last_sequence();
  };
  const auto reconnecting = [&](const absl::Status& why) {
    std::fprintf(stderr, "temper: the connection is lost (%s); trying again …\n", std::string(why.message()).c_str());
  };
  const absl::Status status = FollowJob(context.client, options.job, {}, show, reconnecting);
  // Ctrl-C is how one leaves `logs -f`.
  if (context.client.options().stop.stop_requested()) return kExitOther;
  return status.ok() ? kExitOk : Fail(context, status);
}

}  // namespace

void AddLogs(CLI::App& app, CommandLine& line) {
  auto options = std::make_shared<LogsOptions>();
  CLI::App* command = app.add_subcommand("logs", "Show the log of a job");
  command->fallthrough();
  command->add_option("job", options->job, "The job: ID or jobs/ID")->required();
  command->add_flag("-f,--follow", options->follow, "Go on until the job ends");
  command->footer(
      "A line has its time, I, W or E for information, warning or error, and who wrote it.\n\n"
      "Examples:\n"
      "  temper logs smollm2-k3f9x2\n"
      "  temper logs -f smollm2-k3f9x2 --output json | jq -r .log.text");
  command->callback(
      [options, &line] { line.action = [options](const Context& context) { return Logs(context, *options); }; });
}

}  // namespace temper::command
