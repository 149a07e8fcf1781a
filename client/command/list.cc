// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/command/command_line.h"
#include "client/command/format.h"
#include "client/command/table.h"

namespace temper::command {
namespace {

constexpr int kPageSize = 200;

struct ListOptions {
  std::vector<std::string> states;
  std::vector<std::string> labels;  // key=value
  std::string owner;
  int limit = 50;
};

// In lower case.
std::vector<std::string> StateNames() {
  std::vector<std::string> names;
  for (int i = v1::JobState_MIN + 1; i <= v1::JobState_MAX; ++i) {
    names.push_back(absl::AsciiStrToLower(StateName(static_cast<v1::JobState>(i))));
  }
  return names;
}

absl::StatusOr<v1::JobState> ParseState(const std::string& text) {
  v1::JobState state{};
  if (v1::JobState_Parse(absl::StrCat("JOB_STATE_", absl::AsciiStrToUpper(text)), &state) && state != 0) return state;
  return absl::InvalidArgumentError(
      absl::StrCat("--state ", text, ": is no state of a job; there are ", absl::StrJoin(StateNames(), ", ")));
}

// As many pages as it takes.
absl::StatusOr<v1::ListJobsResponse> ListJobs(const TrainingClient& client, v1::ListJobsRequest request, int limit) {
  v1::ListJobsResponse all;
  while (all.jobs_size() < limit) {
    request.set_page_size(std::min(kPageSize, limit - all.jobs_size()));
    auto page = client.ListJobs(request);
    if (!page.ok()) return page.status();
    all.mutable_jobs()->MergeFrom(page->jobs());
    all.set_next_page_token(page->next_page_token());
    if (page->has_time()) *all.mutable_time() = page->time();
    if (page->next_page_token().empty()) break;
    request.set_page_token(page->next_page_token());
  }
  return all;
}

std::string StepColumn(const v1::Job& job) {
  if (!job.has_latest_step()) return "-";
  return absl::StrCat(job.latest_step().step(), "/", job.total_steps());
}

std::string TableOf(const v1::ListJobsResponse& list, int width) {
  // The clocks here and there may differ.
  const absl::Time now = list.has_time() ? ToTime(list.time()) : absl::Now();
  Table table({"JOB", "STATE", ">STEP", ">LOSS", ">AGE", "NAME", "REASON"});
  for (const v1::Job& job : list.jobs()) {
    table.AddRow({ToJobId(job.name()), StateName(job.state()), StepColumn(job),
                  job.has_latest_step() ? HumanLoss(job.latest_step().loss()) : "-",
                  HumanDuration(now - ToTime(job.create_time())), Truncated(job.spec().display_name(), 30),
                  job.reason()});
  }
  return table.Render(width);
}

ExitCode List(const Context& context, const ListOptions& options) {
  v1::ListJobsRequest request;
  for (const std::string& text : options.states) {
    const auto state = ParseState(text);
    if (!state.ok()) {
      Fail(context, state.status());
      return kExitUsage;
    }
    request.add_states(*state);
  }
  request.set_owner(options.owner);
  for (const std::string& label : options.labels) {
    const std::vector<std::string> parts = absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (parts.size() != 2 || parts[0].empty()) {
      Fail(context, absl::InvalidArgumentError(absl::StrCat("--label ", label, ": must be KEY=VALUE")));
      return kExitUsage;
    }
    (*request.mutable_labels())[parts[0]] = parts[1];
  }
  const auto list = ListJobs(context.client, request, options.limit);
  if (!list.ok()) return Fail(context, list.status());
  if (context.json) {
    PrintJson(*list);
  } else if (list->jobs().empty()) {
    std::printf("No jobs.\n");
  } else {
    std::fputs(TableOf(*list, context.terminal.interactive ? context.terminal.Width() : 0).c_str(), stdout);
    if (!list->next_page_token().empty()) std::printf("There are more; --limit %d shows them.\n", 2 * options.limit);
  }
  return kExitOk;
}

}  // namespace

void AddList(CLI::App& app, CommandLine& line) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* command = app.add_subcommand("list", "Show jobs, newest first");
  command->fallthrough();
  command->add_option("--state", options->states, "Only jobs in these states, for example running,queued")
      ->delimiter(',')
      ->type_name(absl::StrCat("{", absl::StrJoin(StateNames(), ","), "}"));
  command->add_option("--owner", options->owner, "Only jobs of this owner");
  command->add_option("--label", options->labels, "Only jobs with this label, as KEY=VALUE; may be repeated");
  command->add_option("--limit", options->limit, "At most so many")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  temper list\n"
      "  temper list --state queued,running\n"
      "  temper list --output json | jq -r '.jobs[].name'");
  command->callback(
      [options, &line] { line.action = [options](const Context& context) { return List(context, *options); }; });
}

}  // namespace temper::command
