// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/command/command_line.h"
#include "client/command/format.h"
#include "client/command/table.h"

namespace temper::command {
namespace {

ExitCode Checkpoints(const Context& context, const std::string& job) {
  const auto list = context.client.ListCheckpoints(job);
  if (!list.ok()) return Fail(context, list.status());
  if (context.json) {
    PrintJson(*list);
    return kExitOk;
  }
  if (list->checkpoints().empty()) {
    std::printf("%s has no checkpoint yet\n", ToJobName(job).c_str());
    return kExitOk;
  }
  Table table({">STEP", "COMMITTED", ">SIZE", "BEST", "URI"});
  for (const v1::Checkpoint& checkpoint : list->checkpoints()) {
    table.AddRow({absl::StrCat(checkpoint.step()), HumanTime(checkpoint.commit_time(), absl::LocalTimeZone()),
                  HumanBytes(checkpoint.size_bytes()), checkpoint.best() ? "yes" : "", Printable(checkpoint.uri())});
  }
  std::fputs(table.Render(/*width=*/0).c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddCheckpoints(CLI::App& app, CommandLine& line) {
  auto job = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("checkpoints", "List the committed checkpoints of a job, newest first");
  command->fallthrough();
  command->add_option("job", *job, "The job: ID or jobs/ID")->required();
  command->footer(
      "A checkpoint's `weights` directory is a model in Hugging Face layout (or a PEFT adapter). BEST is the one with\n"
      "the lowest validation loss.\n\n"
      "Examples:\n"
      "  temper checkpoints smollm2-k3f9x2\n"
      "  temper download smollm2-k3f9x2 --checkpoint 200 --to ./step-200\n"
      "  temper submit sft.yaml --resume-from URI");
  command->callback(
      [job, &line] { line.action = [job](const Context& context) { return Checkpoints(context, *job); }; });
}

}  // namespace temper::command
