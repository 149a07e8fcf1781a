// SPDX-License-Identifier: Apache-2.0
#include "client/command/question.h"

#include <cstdio>

#include "client/command/format.h"
#include "client/follow_job.h"

namespace temper::command {
namespace {

absl::StatusOr<v1::Job> Wait(const Context& context, const std::string& job, const std::string& doing) {
  StatusArea status(context.terminal);
  status.Draw({doing});
  const auto ignore = [](const v1::JobEvent&) { return true; };
  const absl::Status followed = FollowJob(context.client, job, {}, ignore, [](const absl::Status&) {});
  if (!followed.ok()) return followed;
  return context.client.GetJob(job);
}

}  // namespace

absl::StatusOr<v1::Job> WaitForAnswer(const Context& context, const std::string& job, const std::string& doing) {
  auto ended = Wait(context, job, doing);
  if (ended.ok()) {
    (void)context.client.DeleteJob(job);
  } else {
    // Nobody waits for it any more.
    (void)context.client.WithoutStop().CancelJob(job);
  }
  return ended;
}

ExitCode FailWith(const v1::Job& job) {
  std::fprintf(stderr, "temper: %s: %s\n", CauseName(job.cause()).c_str(), Printable(job.reason()).c_str());
  return ExitCodeOf(job.state());
}

}  // namespace temper::command
