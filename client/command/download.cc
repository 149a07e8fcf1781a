// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/command/command_line.h"
#include "client/command/format.h"
#include "client/downloader.h"
#include "common/counted.h"

namespace temper::command {
namespace {

constexpr int kBarWidth = 24;
constexpr std::chrono::milliseconds kRedraw{100};

struct DownloadOptions {
  std::string job;
  std::string directory;
  std::optional<int64_t> checkpoint;
};

ExitCode DownloadCommand(const Context& context, const DownloadOptions& options) {
  StatusLine status_line(context.terminal);
  std::chrono::steady_clock::time_point drawn;
  const auto progress = [&](const DownloadProgress& state) {
    const auto now = std::chrono::steady_clock::now();
    if (context.json || now - drawn < kRedraw) return;
    drawn = now;
    const double ratio =
        static_cast<double>(state.done_bytes) / static_cast<double>(std::max<int64_t>(1, state.total_bytes));
    status_line.Draw(absl::StrCat(Bar(ratio, kBarWidth), "  ", HumanBytes(state.done_bytes), " of ",
                                  HumanBytes(state.total_bytes), "  ", Printable(state.path)));
  };
  const std::string parent =
      options.checkpoint ? CheckpointName(options.job, *options.checkpoint) : ToJobName(options.job);
  const auto result = DownloadArtifacts(context.client, parent, options.directory, progress);
  status_line.Clear();
  if (!result.ok()) return Fail(context, result.status());
  if (context.json) {
    const nlohmann::json json = {{"job", ToJobName(options.job)},
                                 {"directory", options.directory},
                                 {"files", result->files},
                                 {"bytes", result->bytes},
                                 {"received_bytes", result->received_bytes}};
    std::printf("%s\n", json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s, %s in %s (%s received; digests verified)\n", Counted(result->files, "file").c_str(),
                HumanBytes(result->bytes).c_str(), options.directory.c_str(),
                HumanBytes(result->received_bytes).c_str());
    if (options.checkpoint) std::printf("The model is in %s/weights\n", options.directory.c_str());
  }
  return kExitOk;
}

}  // namespace

void AddDownload(CLI::App& app, CommandLine& line) {
  auto options = std::make_shared<DownloadOptions>();
  CLI::App* command = app.add_subcommand("download", "Take the export of a job home, or one of its checkpoints");
  command->fallthrough();
  command->add_option("job", options->job, "The job: ID or jobs/ID")->required();
  command->add_option("--to", options->directory, "Directory for the files, created when missing")
      ->required()
      ->type_name("DIR");
  command->add_option("--checkpoint", options->checkpoint, "Step of a checkpoint, as `temper checkpoints` lists them");
  command->footer(
      "Run it again after an interruption: whole files are kept, partial ones (NAME.part) go on where they ended. A "
      "file\n"
      "has its name only when its SHA-256 is right.\n\n"
      "Examples:\n"
      "  temper download smollm2-k3f9x2 --to ./my-model\n"
      "  temper download smollm2-k3f9x2 --checkpoint 200 --to ./step-200");
  command->callback([options, &line] {
    line.action = [options](const Context& context) { return DownloadCommand(context, *options); };
  });
}

}  // namespace temper::command
