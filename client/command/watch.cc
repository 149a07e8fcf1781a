// SPDX-License-Identifier: Apache-2.0
#include "client/command/watch.h"

#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/command/event_view.h"
#include "client/follow_job.h"

namespace temper::command {

ExitCode Watch(const Context& context, const std::string& job) {
  EventView view(context.terminal);
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  const auto show = [&](const v1::JobEvent& event) {
    if (event.has_state()) state = event.state().state();
    context.json ? PrintJson(event) : view.Show(event);
    return true;
  };
  const auto reconnecting = [&](const absl::Status& why) {
    view.Note(absl::StrCat("the connection is lost (", why.message(), "); trying again …"));
  };
  const absl::Status status = FollowJob(context.client, job, {}, show, reconnecting);
  view.Finish();

  if (absl::IsCancelled(status) && context.client.options().stop.stop_requested()) {
    std::fprintf(
        stderr,
        "temper: stopped watching; the job goes on. `temper watch %s` takes up again, `temper cancel %s` ends it.\n",
        ToJobId(job).c_str(), ToJobId(job).c_str());
    return kExitOther;
  }
  if (!status.ok()) return Fail(context, status);
  if (!IsEnd(state)) return Fail(context, absl::InternalError("the server ended the stream before the job had ended"));
  if (!context.json && state == v1::JOB_STATE_SUCCEEDED) {
    std::printf("Take the result home: temper download %s --to DIR\n", ToJobId(job).c_str());
  }
  return ExitCodeOf(state);
}

void AddWatch(CLI::App& app, CommandLine& line) {
  auto job = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("watch", "Follow a job until it ends");
  command->fallthrough();
  command->add_option("job", *job, "The job: ID or jobs/ID")->required();
  command->footer(
      "Events are shown from the first one on, so a job that has ended can be watched too. A lost connection is taken "
      "up\n"
      "where it broke. Ctrl-C stops watching, not the job.\n\n"
      "Examples:\n"
      "  temper watch smollm2-k3f9x2\n"
      "  temper watch smollm2-k3f9x2 --output json | jq -c .step.loss");
  command->callback([job, &line] { line.action = [job](const Context& context) { return Watch(context, *job); }; });
}

}  // namespace temper::command
