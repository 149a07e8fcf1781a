// SPDX-License-Identifier: Apache-2.0
#include "common/storage/azure.h"

#include <arrow/filesystem/azurefs.h>
#include <arrow/io/interfaces.h>
#include <arrow/util/io_util.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <iterator>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "common/secret.h"
#include "common/storage/retry.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

using arrow::fs::FileInfo;
using arrow::fs::FileType;
using std::chrono::milliseconds;

// Arrow's stream puts an empty blob in the place of what was there before anything is written: files are written in a
// directory beside it, each writer's own, and get their name once they are whole.
std::string NewPartialDirectory(const std::string& path) {
  return absl::StrCat(path, ".", RandomHex(8), kPartialSuffix);
}
std::string PartialFile(const std::string& directory) { return directory + "/file"; }

// "… Azure Error: [CODE] text" is all that there is of it.
absl::Status FromAzureError(const arrow::Status& status) {
  std::string message(status.message());
  if (const size_t begin = message.find("Azure Error: "); begin != message.npos) message = message.substr(begin);
  message = message.substr(0, message.find('\n'));  // what follows are IDs, and the same again
  while (message.ends_with('\n') || message.ends_with('\r') || message.ends_with('.')) message.pop_back();
  if (ContainsAny(message, {"ContainerNotFound", "FilesystemNotFound", "specified container does not exist",
                            "ContainerBeingDeleted"})) {
    return NoSuchBucket(std::move(message));
  }
  if (ContainsAny(message,
                  {"AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch",
                   "InvalidAuthenticationInfo", "NoAuthenticationInformation", "AccountIsDisabled",
                   "InsufficientAccountPermissions", "PublicAccessNotPermitted", "Credential", "401 ", "403 "})) {
    return WrongCredentials(std::move(message),
                            "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_ID where this process "
                            "runs, and the account's roles");
  }
  if (arrow::internal::ErrnoFromStatus(status) == ENOENT || ContainsAny(message, {"BlobNotFound", "PathNotFound"})) {
    return absl::NotFoundError(message);
  }
  if (ContainsAny(message, {"AccountLimitExceeded", "QuotaExceeded"})) return StoreIsFull(std::move(message));
  return StoreIsDown(std::move(message));
}

// The SDK throws what has to do with connections, and Arrow lets some of it pass.
template <typename Call>
auto Caught(Call&& call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::exception& error) {
    return arrow::Status::IOError("Azure Error: ", error.what());
  }
}

const arrow::Status& StatusOf(const arrow::Status& status) { return status; }
template <typename Value>
const arrow::Status& StatusOf(const arrow::Result<Value>& result) {
  return result.status();
}

// With errors of ours.
template <typename Call>
auto Once(Call&& call) -> decltype(call()) {
  auto result = Caught(call);
  if (StatusOf(result).ok()) return result;
  return ToArrow(FromAzureError(StatusOf(result)));
}

// Of what may be done twice.
template <typename Call>
auto Repeated(milliseconds deadline, Call&& call) -> decltype(call()) {
  RetryPauses pauses(deadline);
  while (true) {
    auto result = Once(call);
    const auto ours = FromOurs(StatusOf(result));
    if (!ours || !absl::IsUnavailable(*ours) || !pauses.Again()) return result;
  }
}

class AzureReader final : public RemoteFile {
 public:
  AzureReader(std::shared_ptr<arrow::io::RandomAccessFile> file, milliseconds deadline)
      : file_(std::move(file)), deadline_(deadline) {}

  arrow::Result<int64_t> GetSize() override { return file_->GetSize(); }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t size, void* out) override {
    return Repeated(deadline_, [&] { return file_->ReadAt(position, size, out); });
  }
  using arrow::io::RandomAccessFile::ReadAt;

 private:
  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
  const milliseconds deadline_;
};

class AzureFiles final : public RemoteFileSystem {
 public:
  AzureFiles(std::shared_ptr<arrow::fs::FileSystem> files, milliseconds deadline)
      : files_(std::move(files)), deadline_(deadline) {}

  std::string type_name() const override { return files_->type_name(); }

  arrow::Result<FileInfo> GetFileInfo(const std::string& path) override {
    return Repeated(deadline_, [&] { return files_->GetFileInfo(path); });
  }
  arrow::Result<std::vector<FileInfo>> GetFileInfo(const arrow::fs::FileSelector& selector) override {
    return Repeated(deadline_, [&] { return files_->GetFileInfo(selector); });
  }
  arrow::Status DeleteDir(const std::string& path) override {
    return Repeated(deadline_, [&] { return files_->DeleteDir(path); });
  }
  // Not waited for: who gives up a file does so because the store is gone.
  arrow::Status DeletePartial(const std::string& directory) {
    return Once([&] { return files_->DeleteDir(directory); });
  }
  arrow::Status DeleteFile(const std::string& path) override {
    return Repeated(deadline_, [&] {
      const arrow::Status deleted = files_->DeleteFile(path);
      const bool gone = arrow::internal::ErrnoFromStatus(deleted) == ENOENT;  // by an attempt that seemed to fail
      return gone ? arrow::Status::OK() : deleted;
    });
  }

  // `from` is there, and nobody else touches it. Accounts without a hierarchical namespace can't rename: there the
  // bytes are copied, in the account.
  arrow::Status MoveOrCopy(const std::string& from, const std::string& to) {
    bool renames = true;
    const arrow::Status renamed = Repeated(deadline_, [&]() -> arrow::Status {
      arrow::Status status = files_->Move(from, to);
      renames = !status.IsNotImplemented();
      if (!renames) return arrow::Status::OK();
      if (!absl::IsNotFound(FromAzureError(status))) return status;
      // By an attempt that seemed to fail: ours, or one of the SDK's own.
      ARROW_ASSIGN_OR_RAISE(const std::vector<FileInfo> now, files_->GetFileInfo({from, to}));
      const bool done = now[0].type() == FileType::NotFound && now[1].type() == FileType::File;
      return done ? arrow::Status::OK() : status;
    });
    if (renames) return renamed;
    return Repeated(deadline_, [&] { return files_->CopyFile(from, to); });
  }

  arrow::Status Move(const std::string& from, const std::string& to) override {
    arrow::Status moved = MoveOrCopy(from, to);
    return moved.ok() ? DeleteFile(from) : moved;
  }

  arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenInputFile(const FileInfo& info) override {
    auto file = Repeated(deadline_, [&] { return files_->OpenInputFile(info); });
    if (!file.ok()) return file.status();
    return std::make_shared<AzureReader>(*std::move(file), deadline_);
  }
  using RemoteFileSystem::OpenInputFile;

  arrow::Result<std::shared_ptr<arrow::io::OutputStream>> OpenOutputStream(
      const std::string& path, const std::shared_ptr<const arrow::KeyValueMetadata>& metadata) override;

 private:
  const std::shared_ptr<arrow::fs::FileSystem> files_;
  const milliseconds deadline_;
};

class AzureWriter final : public arrow::io::OutputStream {
 public:
  AzureWriter(std::shared_ptr<arrow::io::OutputStream> stream, AzureFiles& files,
              std::shared_ptr<arrow::fs::FileSystem> owner, std::string partial, std::string path)
      : stream_(std::move(stream)),
        files_(files),
        owner_(std::move(owner)),
        partial_(std::move(partial)),
        path_(std::move(path)) {}
  ~AzureWriter() override { (void)Abort(); }

  arrow::Status Write(const void* data, int64_t size) override {
    return Once([&] { return stream_->Write(data, size); });
  }
  // Nothing waits in memory but a block.
  arrow::Status Flush() override { return arrow::Status::OK(); }
  arrow::Status Close() override {
    arrow::Status status = Once([&] { return stream_->Close(); });
    if (!status.ok()) return status;
    stream_ = nullptr;
    status = files_.MoveOrCopy(PartialFile(partial_), path_);
    (void)files_.DeletePartial(partial_);
    return status;
  }
  arrow::Status Abort() override {
    if (stream_ == nullptr) return arrow::Status::OK();
    (void)stream_->Abort();
    stream_ = nullptr;
    return files_.DeletePartial(partial_);
  }
  arrow::Result<int64_t> Tell() const override { return stream_->Tell(); }
  bool closed() const override { return stream_ == nullptr; }

 private:
  std::shared_ptr<arrow::io::OutputStream> stream_;  // null once closed or aborted
  AzureFiles& files_;
  const std::shared_ptr<arrow::fs::FileSystem> owner_;  // of files_
  const std::string partial_;                           // a directory
  const std::string path_;
};

arrow::Result<std::shared_ptr<arrow::io::OutputStream>> AzureFiles::OpenOutputStream(
    const std::string& path, const std::shared_ptr<const arrow::KeyValueMetadata>& metadata) {
  std::string partial = NewPartialDirectory(path);
  auto stream = Repeated(deadline_, [&] { return files_->OpenOutputStream(PartialFile(partial), metadata); });
  if (!stream.ok()) return stream.status();
  return std::make_shared<AzureWriter>(*std::move(stream), *this, shared_from_this(), std::move(partial), path);
}

// Only these get a token.
constexpr std::string_view kClouds[] = {"core.windows.net", "core.usgovcloudapi.net", "core.chinacloudapi.cn",
                                        "fabric.microsoft.com"};

// The account becomes a part of a host's name: no letter may end it, or make another of it.
constexpr std::string_view kAccountLetters = "abcdefghijklmnopqrstuvwxyz0123456789-";
constexpr std::string_view kContainerLetters = "abcdefghijklmnopqrstuvwxyz0123456789-$";
constexpr size_t kLongestName = 63;

bool IsName(std::string_view name, std::string_view letters) {
  return !name.empty() && name.size() <= kLongestName && name.find_first_not_of(letters) == name.npos;
}

struct Account {
  std::string container, name;
  std::string cloud;  // "core.windows.net", or ""
};

absl::StatusOr<Account> ReadAccount(std::string_view uri, const std::string& authority) {
  Account account;
  const size_t at = authority.find('@');
  account.container = authority.substr(0, at);
  const std::string host = at == authority.npos ? "" : authority.substr(at + 1);
  const size_t dot = host.find('.');
  account.name = host.substr(0, dot);
  if (account.name.empty()) account.name = FirstOfEnvironment({"AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"});
  const std::string service = dot == host.npos ? "" : host.substr(dot + 1);
  const std::string cloud = service.substr(service.find('.') + 1);
  const bool known = (service.starts_with("dfs.") || service.starts_with("blob.")) &&
                     std::find(std::begin(kClouds), std::end(kClouds), cloud) != std::end(kClouds);
  const bool has_names = !account.container.empty() && !account.name.empty();
  if (!has_names || (!service.empty() && !known)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", std::string(uri), "\" does not name a container and its account: write abfs://container@account/path"));
  }
  if (!IsName(account.container, kContainerLetters) || !IsName(account.name, kAccountLetters)) {
    const bool container = !IsName(account.container, kContainerLetters);
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", std::string(uri), "\": ", container ? account.container : account.name, " is no name of ",
        container ? "a container" : "an account", ", which has lower-case letters, digits and '-' (and '$', in a ",
        "container's), ", kLongestName, " at most"));
  }
  account.cloud = known ? cloud : "";
  return account;
}

// Requests carry a signature that a key made, or a token that opens everything: that is not for whom a URI names.
arrow::Status SetCredentials(arrow::fs::AzureOptions& options, bool tokens) {
  const std::string key = FirstOfEnvironment({"AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"});
  if (!key.empty()) return options.ConfigureAccountKeyCredential(key);
  if (!tokens) return options.ConfigureAnonymousCredential();
  const std::string token = FirstOfEnvironment({"AZURE_STORAGE_SAS_TOKEN"});
  if (!token.empty()) return options.ConfigureSASCredential(token.starts_with('?') ? token : "?" + token);
  return options.ConfigureDefaultCredential();
}

}  // namespace

std::shared_ptr<arrow::fs::FileSystem> WithAzureRetries(std::shared_ptr<arrow::fs::FileSystem> files,
                                                        milliseconds deadline) {
  return std::make_shared<AzureFiles>(std::move(files), deadline);
}

absl::StatusOr<RemotePlace> OpenAzure(std::string_view uri, milliseconds deadline) {
  if (HasUserInformation(uri))
    return UserInformation("abfs://", "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN");
  const absl::StatusOr<std::string> path = PathOfRemote(uri);
  if (!path.ok()) return path.status();
  const auto parameters = ReadParameters(uri);
  if (!parameters.ok()) return parameters.status();
  const std::string authority = path->substr(0, path->find('/'));
  const absl::StatusOr<Account> account = ReadAccount(WithoutParameters(uri), authority);
  if (!account.ok()) return account.status();

  arrow::fs::AzureOptions options;
  options.account_name = account->name;
  // In a thread of Arrow's own, what the SDK throws would end the process.
  options.background_writes = false;
  const std::string at = parameters->empty()
                             ? FirstOfEnvironment({"AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_SERVICE_ENDPOINT"})
                             : parameters->front().value;
  if (!at.empty()) {
    Endpoint endpoint;
    if (absl::Status read = ReadEndpoint(uri, at, endpoint); !read.ok()) return read;
    // Emulators have the account in the path, which Arrow adds to an authority that does not begin with a dot.
    std::string host = endpoint.authority.substr(0, endpoint.authority.find('/'));
    if (host.starts_with(account->name + ".")) host = host.substr(account->name.size());
    options.blob_storage_scheme = options.dfs_storage_scheme = endpoint.scheme;
    options.blob_storage_authority = options.dfs_storage_authority = host;
    if (host.starts_with(".blob.")) options.dfs_storage_authority = absl::StrCat(".dfs.", host.substr(6));
  } else if (!account->cloud.empty()) {
    options.blob_storage_authority = absl::StrCat(".blob.", account->cloud);
    options.dfs_storage_authority = absl::StrCat(".dfs.", account->cloud);
  }
  if (const arrow::Status set = Caught([&] { return SetCredentials(options, /*tokens=*/parameters->empty()); });
      !set.ok()) {
    return FromAzureError(arrow::Status::IOError("Credential: ", set.message()));
  }
  auto files = Caught([&] { return arrow::fs::AzureFileSystem::Make(options); });
  if (!files.ok()) return FromAzureError(files.status());
  std::string root = absl::StrCat(account->container, path->substr(authority.size()));
  return RemotePlace{
      WithAzureRetries(*std::move(files), deadline), std::move(root), at.empty() ? "Azure" : at,
      absl::StrCat(std::string(uri.substr(0, uri.find("://") + 3)), *path, std::string(ParametersOf(uri)))};
}

}  // namespace temper
