// SPDX-License-Identifier: Apache-2.0
#include "common/storage/hub.h"

#include <arrow/filesystem/localfs.h>
#include <arrow/io/file.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/failure.h"
#include "common/storage/hub_client.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

using arrow::fs::FileInfo;
using arrow::fs::FileType;
using std::chrono::milliseconds;
namespace fs = std::filesystem;

// How long a hub is waited for whose answer the cache may stand in for.
constexpr milliseconds kListDeadline = std::chrono::seconds(10);

fs::path HuggingFaceHome() {
  if (std::string home = FirstOfEnvironment({"HF_HOME"}); !home.empty()) return home;
  if (std::string cache = FirstOfEnvironment({"XDG_CACHE_HOME"}); !cache.empty())
    return fs::path(cache) / "huggingface";
  return fs::path(FirstOfEnvironment({"HOME"})) / ".cache/huggingface";
}

fs::path CacheDirectory() {
  const std::string cache = FirstOfEnvironment({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"});
  return cache.empty() ? HuggingFaceHome() / "hub" : fs::path(cache);
}

std::string FirstLine(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return std::string(absl::StripAsciiWhitespace(line));
}

std::string Token() {
  if (std::string token = FirstOfEnvironment({"HF_TOKEN"}); !token.empty()) return token;
  const std::string path = FirstOfEnvironment({"HF_TOKEN_PATH"});
  return FirstLine(path.empty() ? HuggingFaceHome() / "token" : fs::path(path));
}

std::string HubEndpoint() {
  std::string endpoint = FirstOfEnvironment({"HF_ENDPOINT"});
  if (endpoint.empty()) return "https://huggingface.co";
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint;
}

bool IsOffline() {
  const std::string value = absl::AsciiStrToUpper(FirstOfEnvironment({"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}));
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

// models--org--name/{refs/REVISION, snapshots/COMMIT/…}
fs::path CachedRepository(const HubPlace& place) {
  return CacheDirectory() /
         absl::StrCat(place.dataset ? "datasets--" : "models--", absl::StrReplaceAll(place.repository, {{"/", "--"}}));
}

fs::path Snapshot(const HubPlace& commit) { return CachedRepository(commit) / "snapshots" / commit.revision; }

// The place with the commit that the cache knows as its revision, if it has any of its files.
std::optional<HubPlace> FindInCache(const HubPlace& place) {
  HubPlace commit = place;
  if (!place.pinned()) commit.revision = FirstLine(CachedRepository(place) / "refs" / place.revision);
  std::error_code error;
  if (!commit.pinned() || !fs::is_directory(Snapshot(commit), error)) return std::nullopt;
  return commit;
}

class HubFile final : public RemoteFile {
 public:
  HubFile(std::shared_ptr<HubClient> client, HubPlace place, HubEntry entry)
      : client_(std::move(client)), place_(std::move(place)), entry_(std::move(entry)) {}

  std::string sha256() const override { return entry_.sha256; }
  arrow::Result<int64_t> GetSize() override { return entry_.size; }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t size, void* out) override {
    size = std::min(size, entry_.size - position);
    if (size <= 0) return 0;
    ARROW_RETURN_NOT_OK(ToArrow(client_->Read(place_, entry_, {position, size}, static_cast<char*>(out))));
    return size;
  }
  using arrow::io::RandomAccessFile::ReadAt;

 private:
  const std::shared_ptr<HubClient> client_;
  const HubPlace place_;
  const HubEntry entry_;
};

// A repository at a commit. Its paths begin with "org/name".
class HubFiles final : public RemoteFileSystem {
 public:
  HubFiles(HubPlace commit, std::shared_ptr<HubClient> client)
      : commit_(std::move(commit)), client_(std::move(client)), snapshot_(Snapshot(commit_)) {}

  std::string type_name() const override { return "hf"; }

  arrow::Result<FileInfo> GetFileInfo(const std::string& path) override {
    const HubPlace place = At(path);
    if (place.path.empty()) return FileInfo(path, FileType::Directory);
    std::error_code error;
    if (fs::is_regular_file(snapshot_ / place.path, error)) {
      return File(path, static_cast<int64_t>(fs::file_size(snapshot_ / place.path, error)));
    }
    absl::StatusOr<HubEntry> entry = Find(place);
    if (entry.ok()) return entry->directory ? FileInfo(path, FileType::Directory) : File(path, entry->size);
    if (!absl::IsNotFound(entry.status())) return ToArrow(WithAdvice(entry.status()));
    return FileInfo(path, FileType::NotFound);
  }

  arrow::Result<std::vector<FileInfo>> GetFileInfo(const arrow::fs::FileSelector& selector) override {
    absl::StatusOr<std::vector<HubEntry>> entries = client_->Tree(At(selector.base_dir), selector.recursive);
    if (absl::IsNotFound(entries.status()) && selector.allow_not_found) return std::vector<FileInfo>();
    if (!entries.ok()) return ToArrow(WithAdvice(entries.status()));
    std::vector<FileInfo> infos;
    for (const HubEntry& entry : *entries) {
      const std::string path = absl::StrCat(commit_.repository, "/", entry.path);
      infos.push_back(entry.directory ? FileInfo(path, FileType::Directory) : File(path, entry.size));
      Note(entry);
    }
    return infos;
  }

  arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenInputFile(const FileInfo& info) override {
    const HubPlace place = At(info.path());
    std::error_code error;
    if (fs::is_regular_file(snapshot_ / place.path, error)) {
      ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::io::RandomAccessFile> file,
                            arrow::io::ReadableFile::Open((snapshot_ / place.path).string()));
      return file;
    }
    absl::StatusOr<HubEntry> entry = Find(place);
    if (!entry.ok()) return ToArrow(entry.status());
    return std::make_shared<HubFile>(client_, place, *std::move(entry));
  }
  using RemoteFileSystem::OpenInputFile;

 private:
  static FileInfo File(const std::string& path, int64_t size) {
    FileInfo info(path, FileType::File);
    info.set_size(size);
    return info;
  }

  HubPlace At(const std::string& path) const {
    HubPlace place = commit_;
    place.path = path.size() > commit_.repository.size() ? path.substr(commit_.repository.size() + 1) : "";
    return place;
  }

  // For machines that have the files, and no network.
  absl::Status WithAdvice(const absl::Status& status) const {
    std::error_code error;
    if (!absl::IsUnavailable(status) || !fs::is_directory(snapshot_, error)) return status;
    const std::string message = absl::StrCat(
        std::string(status.message()), ". On a machine without a network, set HF_HUB_OFFLINE=1: the cache is all then");
    return WithCause(absl::UnavailableError(message), CauseOf(status));
  }

  void Note(const HubEntry& entry) {
    std::lock_guard lock(mutex_);
    known_[entry.path] = entry;
  }

  // A file by its own request, so that who reads one has not to list them all; a directory by its list.
  absl::StatusOr<HubEntry> Find(const HubPlace& place) {
    {
      std::lock_guard lock(mutex_);
      if (const auto found = known_.find(place.path); found != known_.end()) return found->second;
    }
    absl::StatusOr<HubEntry> entry = client_->Stat(place);
    if (absl::IsNotFound(entry.status())) {
      const auto below = client_->Tree(place, /*recursive=*/false);
      if (!below.ok()) return below.status();
      entry = HubEntry{.path = place.path, .directory = true};
    }
    if (entry.ok()) Note(*entry);
    return entry;
  }

  const HubPlace commit_;
  const std::shared_ptr<HubClient> client_;
  const fs::path snapshot_;
  std::mutex mutex_;
  std::map<std::string, HubEntry> known_;  // a commit does not change
};

RemotePlace InCache(const HubPlace& commit) {
  std::string root = (Snapshot(commit) / commit.path).string();
  while (root.ends_with('/')) root.pop_back();
  return {std::make_shared<arrow::fs::LocalFileSystem>(), std::move(root), "", commit.Uri()};
}

// Absent when the hub does not say which files there are.
std::optional<bool> HasAllFiles(const HubPlace& commit, milliseconds deadline) {
  HubClient client(HubEndpoint(), Token(), std::min(deadline, kListDeadline));
  const auto entries = client.Tree(commit, /*recursive=*/true);
  if (!entries.ok()) return std::nullopt;
  std::error_code error;
  return std::all_of(entries->begin(), entries->end(), [&](const HubEntry& entry) {
    return entry.directory || fs::is_regular_file(Snapshot(commit) / entry.path, error);
  });
}

// Whether what is below the place can be read from the cache alone. A process opens the directory of its data once a
// file: what the hub answered is remembered, for a commit does not change.
bool IsInCache(const HubPlace& commit, milliseconds deadline) {
  std::error_code error;
  if (!FindInCache(commit) || !fs::exists(Snapshot(commit) / commit.path, error)) return false;
  static std::mutex mutex;
  static auto* const known = new std::map<std::string, bool>;
  const std::string uri = commit.Uri();
  {
    std::lock_guard lock(mutex);
    if (const auto found = known->find(uri); found != known->end()) return found->second;
  }
  const std::optional<bool> all = HasAllFiles(commit, deadline);
  if (!all) return false;
  std::lock_guard lock(mutex);
  return (*known)[uri] = *all;
}

}  // namespace

absl::StatusOr<HubPlace> PinHub(const HubPlace& place, milliseconds deadline) {
  if (const auto cached = FindInCache(place)) return *cached;
  if (IsOffline()) {
    return WithCause(
        absl::FailedPreconditionError(absl::StrCat(
            place.Uri(), " is not in the cache ", CacheDirectory().string(),
            ", and HF_HUB_OFFLINE is set: take it there with `hf download`, or unset it where this process runs")),
        FailureCause::kUserInput);
  }
  if (place.pinned()) return place;
  HubClient client(HubEndpoint(), Token(), deadline);
  absl::StatusOr<std::string> commit = client.Resolve(place);
  if (!commit.ok()) {
    return WithCause(absl::Status(commit.status().code(), absl::StrCat("cannot find ", place.Uri(), ": ",
                                                                       std::string(commit.status().message()))),
                     CauseOf(commit.status()));
  }
  HubPlace pinned = place;
  pinned.revision = *std::move(commit);
  return pinned;
}

absl::StatusOr<RemotePlace> OpenHub(std::string_view uri, milliseconds deadline) {
  const absl::StatusOr<HubPlace> place = ParseHubUri(uri);
  if (!place.ok()) return place.status();
  const absl::StatusOr<HubPlace> commit = PinHub(*place, deadline);
  if (!commit.ok()) return commit.status();
  if (IsOffline() || IsInCache(*commit, deadline)) return InCache(*commit);
  auto client = std::make_shared<HubClient>(HubEndpoint(), Token(), deadline);
  const std::string root = absl::StrCat(commit->repository, commit->path.empty() ? "" : "/", commit->path);
  std::string endpoint = client->endpoint();
  return RemotePlace{std::make_shared<HubFiles>(*commit, std::move(client)), root, std::move(endpoint), commit->Uri()};
}

}  // namespace temper
