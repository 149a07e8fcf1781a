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
#include "common/storage/object_store.h"
#include "common/storage/storage_uri.h"

namespace temper::command {
namespace {

constexpr int kBarWidth = 24;
constexpr std::chrono::milliseconds kRedraw{100};
constexpr int64_t kPiece = 32 << 20;  // of a file in a store, read by several requests at a time

struct DownloadOptions {
  std::string job;
  std::string directory;
  std::optional<int64_t> checkpoint;
  bool direct = false;
};

// Where the server has the export, or the checkpoint.
absl::StatusOr<std::string> FindUri(const TrainingClient& client, const DownloadOptions& options) {
  if (!options.checkpoint) {
    const auto job = client.GetJob(options.job);
    return job.ok() ? absl::StatusOr<std::string>(job->export_uri()) : job.status();
  }
  const auto list = client.ListCheckpoints(options.job);
  if (!list.ok()) return list.status();
  for (const v1::Checkpoint& checkpoint : list->checkpoints()) {
    if (checkpoint.step() == *options.checkpoint) return checkpoint.uri();
  }
  return absl::NotFoundError(absl::StrCat(ToJobName(options.job), " has no checkpoint of step ", *options.checkpoint));
}

absl::StatusOr<std::unique_ptr<ObjectStore>> OpenStore(const TrainingClient& client, const DownloadOptions& options) {
  const auto uri = FindUri(client, options);
  if (!uri.ok()) return uri.status();
  if (SchemeOf(*uri) == StorageScheme::kLocal && !uri->empty()) {
    return absl::FailedPreconditionError(absl::StrCat(ToJobName(options.job), " is stored on a disk of the server, at ",
                                                      *uri, ": download it without --direct"));
  }
  return uri->empty() ? nullptr : ObjectStore::Open(*uri);  // null when there is no export yet
}

absl::Status ReadFromStore(const ObjectStore& store, const std::string& path, int64_t offset,
                           absl::FunctionRef<absl::Status(std::string_view)> take) {
  const auto reader = store.OpenForRead(path);
  if (!reader.ok()) return reader.status();
  while (offset < (*reader)->size()) {
    const auto bytes = (*reader)->ReadAt(offset, std::min(kPiece, (*reader)->size() - offset));
    if (!bytes.ok()) return bytes.status();
    if (absl::Status taken = take(*bytes); !taken.ok()) return taken;
    offset += static_cast<int64_t>(bytes->size());
  }
  return absl::OkStatus();
}

absl::StatusOr<DownloadResult> Download(const TrainingClient& client, const DownloadOptions& options,
                                        absl::FunctionRef<void(const DownloadProgress&)> progress,
                                        WaitingForPlace waiting) {
  const std::string parent =
      options.checkpoint ? CheckpointName(options.job, *options.checkpoint) : ToJobName(options.job);
  if (!options.direct) return DownloadArtifacts(client, parent, options.directory, progress, waiting);
  const auto store = OpenStore(client, options);
  if (!store.ok()) return store.status();
  const auto read = [&](const std::string& path, int64_t offset,
                        absl::FunctionRef<absl::Status(std::string_view)> take) -> absl::Status {
    if (*store == nullptr) {  // it was committed since
      return absl::FailedPreconditionError(absl::StrCat(ToJobName(options.job), " had no export yet: try again"));
    }
    return ReadFromStore(**store, path, offset, take);
  };
  return DownloadArtifacts(client, parent, options.directory, progress, read);
}

ExitCode DownloadCommand(const Context& context, const DownloadOptions& options) {
  StatusArea status_line(context.terminal);
  std::chrono::steady_clock::time_point drawn;
  const auto progress = [&](const DownloadProgress& state) {
    const auto now = std::chrono::steady_clock::now();
    if (context.json || now - drawn < kRedraw) return;
    drawn = now;
    const double ratio =
        static_cast<double>(state.done_bytes) / static_cast<double>(std::max<int64_t>(1, state.total_bytes));
    status_line.Draw({absl::StrCat(Bar(ratio, kBarWidth), "  ", HumanBytes(state.done_bytes), " of ",
                                   HumanBytes(state.total_bytes), "  ", Printable(state.path))});
  };
  const auto waiting = [&](const absl::Status& why) {
    status_line.Clear();
    PrintWaiting(why);
  };
  const auto result = Download(context.client, options, progress, waiting);
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
  command->add_flag("--direct", options->direct,
                    "Read the files from the object store, with this user's credentials and not through the server");
  command->footer(
      "Run it again after an interruption: whole files are kept, partial ones (NAME.part) go on where they ended. A "
      "file\n"
      "has its name only when its SHA-256 is right.\n\n"
      "Examples:\n"
      "  temper download smollm2-k3f9x2 --to ./my-model\n"
      "  temper download smollm2-k3f9x2 --checkpoint 200 --to ./step-200\n"
      "  AWS_PROFILE=mine temper download smollm2-k3f9x2 --to ./my-model --direct");
  command->callback([options, &line] {
    line.action = [options](const Context& context) { return DownloadCommand(context, *options); };
  });
}

}  // namespace temper::command
