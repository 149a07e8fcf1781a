// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/command/command_line.h"
#include "client/command/format.h"
#include "client/command/training_progress.h"
#include "common/counted.h"

namespace temper::command {
namespace {

std::string DataText(const v1::DataSource& data) {
  if (!data.uri().empty()) return data.uri();
  return absl::StrJoin(data.sources(), ", ", [](std::string* out, const v1::DataSource::Source& source) {
    absl::StrAppend(out, source.uri());
    if (source.weight() != 1) absl::StrAppend(out, " × ", source.weight());
  });
}

std::string SamplesText(const v1::DataStatistics& data) {
  std::string text =
      absl::StrCat(data.samples_kept(), ", ", Counted(data.tokens(), "token"), ", ", data.scored_tokens(), " scored");
  if (data.samples_truncated() > 0) absl::StrAppend(&text, ", ", data.samples_truncated(), " cut off");
  const int64_t left_out = data.samples_overlong() + data.samples_refused();
  if (left_out > 0) absl::StrAppend(&text, ", ", left_out, " left out");
  if (data.data_share() < 1)
    absl::StrAppend(&text, absl::StrFormat(" (in the first %.2g %%)", 100 * data.data_share()));
  return text;
}

std::string ValidationText(const v1::Job& job) {
  const v1::ValidationResult& latest = job.latest_validation();
  std::string text = absl::StrCat("loss ", HumanLoss(latest.loss()), " at step ", latest.step());
  if (!latest.best()) {
    absl::StrAppend(&text, ", best ", HumanLoss(job.best_validation().loss()), " at step ",
                    job.best_validation().step());
  }
  return text;
}

// "91 % training of 12m: training 11m, starting 20s, …", largest first; what took less than a second is left out.
std::string TimeText(const v1::JobTime& time) {
  const std::pair<const char*, double> categories[] = {
      {"training", time.training()},     {"queued", time.queued()},       {"checking", time.checking()},
      {"starting", time.starting()},     {"lost", time.lost()},           {"checkpointing", time.checkpointing()},
      {"validating", time.validating()}, {"exporting", time.exporting()}, {"stopping", time.stopping()},
      {"paused", time.paused()},         {"other", time.other()}};
  std::vector<std::pair<double, std::string>> parts;
  double sum = 0;
  for (const auto& [name, seconds] : categories) {
    sum += seconds;
    if (seconds >= 1) parts.emplace_back(-seconds, absl::StrCat(name, " ", HumanDuration(absl::Seconds(seconds))));
  }
  if (parts.empty()) return "";
  std::sort(parts.begin(), parts.end());
  return absl::StrFormat("%.0f %% training: %s", 100 * time.training() / sum,
                         absl::StrJoin(parts, ", ", [](std::string* out, const auto& part) { *out += part.second; }));
}

// One attribute a line; those without a value are left out.
std::string Description(const v1::Job& job) {
  std::string out;
  const auto add = [&](const std::string& label, const std::string& value) {
    if (value.empty()) return;
    absl::StrAppend(&out, label, std::string(12 - label.size(), ' '), Printable(value), "\n");
  };
  const auto time = [](const google::protobuf::Timestamp& stamp) { return HumanTime(stamp, absl::LocalTimeZone()); };
  add("Job", job.name());
  add("Name", job.spec().display_name());
  add("State", StateName(job.state()));
  add("Cause", CauseName(job.cause()));
  add("Reason", job.reason());
  if (job.state() == v1::JOB_STATE_RUNNING) add("Phase", PhaseText(job.phase()));
  if (job.has_latest_step()) add("Progress", StepText(job.latest_step()));
  if (job.has_latest_step()) add("Memory", absl::StrCat("at most ", HumanBytes(job.latest_step().peak_memory_bytes())));
  if (job.has_latest_validation()) add("Validation", ValidationText(job));
  if (job.queue_position() > 0) add("Queue", absl::StrCat("position ", job.queue_position()));
  add("Created", time(job.create_time()));
  if (job.has_start_time()) add("Started", time(job.start_time()));
  if (job.has_end_time()) add("Ended", time(job.end_time()));
  if (job.epoch() > 0) add("Time", TimeText(job.time_spent()));
  if (job.epoch() > 0) add("Launches", absl::StrCat(job.epoch(), ", restarts ", job.restarts()));
  add("Model", job.spec().model().uri());
  if (job.has_backend()) add("Backend", absl::StrCat(job.backend().backend(), ": ", job.backend().reason()));
  add("Data", DataText(job.spec().data()));
  if (job.has_data()) add("Samples", SamplesText(job.data()));
  add("Owner", job.spec().owner());
  add("Labels",
      absl::StrJoin(std::map(job.spec().labels().begin(), job.spec().labels().end()), ", ", absl::PairFormatter("=")));
  add("Export", job.export_uri());
  return out;
}

ExitCode Get(const Context& context, const std::string& name) {
  const auto job = context.client.GetJob(name);
  if (!job.ok()) return Fail(context, job.status());
  if (context.json) {
    PrintJson(*job);
  } else {
    std::fputs(Description(*job).c_str(), stdout);
  }
  return kExitOk;
}

}  // namespace

void AddGet(CLI::App& app, CommandLine& line) {
  auto job = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("get", "Show one job");
  command->fallthrough();
  command->add_option("job", *job, "The job: ID or jobs/ID")->required();
  command->footer(
      "Examples:\n"
      "  temper get smollm2-k3f9x2\n"
      "  temper get smollm2-k3f9x2 --output json | jq -r .export_uri");
  command->callback([job, &line] { line.action = [job](const Context& context) { return Get(context, *job); }; });
}

}  // namespace temper::command
