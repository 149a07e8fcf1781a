// SPDX-License-Identifier: Apache-2.0
#include "client/downloader.h"

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/partial_file.h"

namespace temper {
namespace {

// A stream that breaks is opened again at once as long as each one brings something, and this often when it does not.
constexpr int kFruitlessStreams = 3;

// A server may not make us write outside the directory that the user named.
absl::Status CheckPath(const std::string& path) {
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(path, '/'))) {
    if (part.empty() || part == "." || part == ".." || part.find('\0') != std::string::npos) {
      return absl::DataLossError(absl::StrCat("the server lists a file with the path '", path,
                                              "', which is not below its directory; nothing was downloaded"));
    }
  }
  return absl::OkStatus();
}

bool IsWhole(const std::string& path, const v1::Artifact& artifact) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error || static_cast<int64_t>(size) != artifact.size_bytes()) return false;
  const auto digest = FileSha256(path);
  return digest.ok() && *digest == artifact.sha256();
}

class Download {
 public:
  Download(ReadArtifactFrom read, absl::FunctionRef<void(const DownloadProgress&)> progress)
      : read_(read), progress_(progress) {}

  absl::StatusOr<DownloadResult> Run(const v1::ListArtifactsResponse& list, const std::string& directory) {
    for (const v1::Artifact& artifact : list.artifacts()) {
      if (auto status = CheckPath(artifact.path()); !status.ok()) return status;
      result_.bytes += artifact.size_bytes();
    }
    for (const v1::Artifact& artifact : list.artifacts()) {
      const std::string path = (std::filesystem::path(directory) / artifact.path()).string();
      if (!IsWhole(path, artifact)) {
        if (auto status = Fetch(artifact, path); !status.ok()) return status;
      }
      finished_bytes_ += artifact.size_bytes();
      ++result_.files;
      Report(artifact.path(), 0);
    }
    return result_;
  }

 private:
  void Report(std::string_view path, int64_t bytes_of_file) {
    progress_({.done_bytes = finished_bytes_ + bytes_of_file, .total_bytes = result_.bytes, .path = path});
  }

  absl::Status Fetch(const v1::Artifact& artifact, const std::string& path) {
    auto file = PartialFile::Open(path, artifact.size_bytes());
    if (!file.ok()) return file.status();
    // The second try is for a partial file that was damaged, or belongs to another export.
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (auto status = Receive(artifact, *file); !status.ok()) return status;
      if (file->written() == artifact.size_bytes() && file->Sha256() == artifact.sha256()) return file->Commit();
      if (attempt == 0) {
        if (auto status = file->Restart(); !status.ok()) return status;
      }
    }
    return absl::DataLossError(absl::StrCat(artifact.path(), ": what is stored has the SHA-256 ", file->Sha256(),
                                            " and ", file->written(), " bytes, but the export was committed with ",
                                            artifact.sha256(), " and ", artifact.size_bytes(),
                                            " bytes; the stored file is damaged"));
  }

  // Appends to `file` until it has the artifact's size, or the server has no more.
  absl::Status Receive(const v1::Artifact& artifact, PartialFile& file) {
    int fruitless = 0;
    while (file.written() < artifact.size_bytes()) {
      const int64_t before = file.written();
      absl::Status local;  // an error of ours, which no new stream would mend
      const absl::Status status = read_(artifact.path(), before, [&](std::string_view bytes) -> absl::Status {
        result_.received_bytes += static_cast<int64_t>(bytes.size());
        local = file.Write(bytes);
        if (local.ok()) Report(artifact.path(), file.written());
        return local;
      });
      if (!local.ok()) return local;
      if (status.ok()) return absl::OkStatus();
      fruitless = file.written() > before ? 0 : fruitless + 1;
      if (!absl::IsUnavailable(status) || fruitless >= kFruitlessStreams) return status;
    }
    return absl::OkStatus();
  }

  ReadArtifactFrom read_;
  absl::FunctionRef<void(const DownloadProgress&)> progress_;
  DownloadResult result_;
  int64_t finished_bytes_ = 0;
};

}  // namespace

absl::StatusOr<DownloadResult> DownloadArtifacts(const TrainingClient& client, std::string_view parent,
                                                 const std::string& directory,
                                                 absl::FunctionRef<void(const DownloadProgress&)> progress,
                                                 WaitingForPlace waiting) {
  const std::stop_token stop = client.options().stop;
  const auto from_server = [&](const std::string& path, int64_t offset,
                               absl::FunctionRef<absl::Status(std::string_view)> take) {
    const absl::Status status =
        AwaitPlace({.stop = stop}, [&] { return client.ReadArtifact(parent, path, offset, take); }, waiting);
    // By a server that stops, or that has waited for us for too long: this process, too, may have been stopped.
    const bool cut_off = absl::IsCancelled(status) && !stop.stop_requested();
    return cut_off ? absl::UnavailableError(status.message()) : status;
  };
  return DownloadArtifacts(client, parent, directory, progress, from_server);
}

absl::StatusOr<DownloadResult> DownloadArtifacts(const TrainingClient& client, std::string_view parent,
                                                 const std::string& directory,
                                                 absl::FunctionRef<void(const DownloadProgress&)> progress,
                                                 ReadArtifactFrom read) {
  const auto list = client.ListArtifacts(parent);
  if (!list.ok()) return list.status();
  if (list->artifacts().empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(ToJobName(parent), " has no export yet; `temper get ", ToJobId(parent), "` shows how far it is"));
  }
  return Download(read, progress).Run(*list, directory);
}

}  // namespace temper
