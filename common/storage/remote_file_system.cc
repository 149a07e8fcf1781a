// SPDX-License-Identifier: Apache-2.0
#include "common/storage/remote_file_system.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

constexpr char kOurs[] = "temper::StorageError";

class OurDetail final : public arrow::StatusDetail {
 public:
  explicit OurDetail(absl::Status status) : status_(std::move(status)) {}
  const char* type_id() const override { return kOurs; }
  std::string ToString() const override { return status_.ToString(); }
  const absl::Status& status() const { return status_; }

 private:
  const absl::Status status_;
};

arrow::Status NotHere() { return arrow::Status::NotImplemented("a remote store has no such operation"); }

absl::Status UserInput(absl::StatusCode code, std::string message, std::string_view advice) {
  absl::StrAppend(&message, ". ", std::string(advice));
  return WithCause(absl::Status(code, message), FailureCause::kUserInput);
}

}  // namespace

arrow::Status ToArrow(const absl::Status& status) {
  if (status.ok()) return arrow::Status::OK();
  return arrow::Status::IOError(std::string(status.message())).WithDetail(std::make_shared<OurDetail>(status));
}

std::optional<absl::Status> FromOurs(const arrow::Status& status) {
  if (status.detail() == nullptr || std::string_view(status.detail()->type_id()) != kOurs) return std::nullopt;
  return static_cast<const OurDetail&>(*status.detail()).status();
}

absl::Status WrongCredentials(std::string message, std::string_view what_to_check) {
  return UserInput(absl::StatusCode::kPermissionDenied, std::move(message),
                   absl::StrCat("The credentials that this process finds are missing, wrong, or not allowed to do "
                                "this: check ",
                                std::string(what_to_check)));
}

absl::Status UserInformation(std::string_view scheme, std::string_view where_instead) {
  return absl::InvalidArgumentError(absl::StrCat("a ", std::string(scheme),
                                                 " URI holds a user name or a key: take them out, and set ",
                                                 std::string(where_instead)));
}

absl::Status NoSuchBucket(std::string message) {
  return UserInput(absl::StatusCode::kFailedPrecondition, std::move(message),
                   "Create the bucket, or correct the URI or the endpoint");
}

absl::Status StoreIsFull(std::string message) {
  absl::StrAppend(&message, ". Free some space or choose another place");
  return WithCause(absl::ResourceExhaustedError(message), FailureCause::kStorage);
}

absl::Status StoreIsDown(std::string message) {
  absl::StrAppend(&message,
                  ". It was tried again for a while: see whether the store is up, and can be reached from here");
  return WithCause(absl::UnavailableError(message), FailureCause::kStorage);
}

std::string FirstOfEnvironment(std::initializer_list<const char*> variables) {
  for (const char* variable : variables) {
    if (const char* value = std::getenv(variable); value != nullptr && *value != '\0') return value;
  }
  return "";
}

bool ContainsAny(std::string_view text, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char* word) { return text.find(word) != text.npos; });
}

absl::Status ReadEndpoint(std::string_view uri, std::string_view text, Endpoint& endpoint) {
  while (text.ends_with('/')) text.remove_suffix(1);
  const size_t scheme = text.find("://");
  endpoint.scheme = scheme == text.npos ? "https" : text.substr(0, scheme);
  endpoint.authority = scheme == text.npos ? text : text.substr(scheme + 3);
  if (endpoint.scheme == "http" || endpoint.scheme == "https") return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(WithoutParameters(uri)), "\" is to be found at ",
                                                 std::string(text),
                                                 ", which is no URL of HTTP: correct `endpoint`, or the environment"));
}

arrow::Status RemoteFileSystem::CreateDir(const std::string&, bool) { return NotHere(); }
arrow::Status RemoteFileSystem::DeleteDir(const std::string&) { return NotHere(); }
arrow::Status RemoteFileSystem::DeleteDirContents(const std::string&, bool) { return NotHere(); }
arrow::Status RemoteFileSystem::DeleteRootDirContents() { return NotHere(); }
arrow::Status RemoteFileSystem::DeleteFile(const std::string&) { return NotHere(); }
arrow::Status RemoteFileSystem::Move(const std::string&, const std::string&) { return NotHere(); }
arrow::Status RemoteFileSystem::CopyFile(const std::string&, const std::string&) { return NotHere(); }
arrow::Result<std::shared_ptr<arrow::io::InputStream>> RemoteFileSystem::OpenInputStream(const std::string&) {
  return NotHere();
}
arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> RemoteFileSystem::OpenInputFile(const std::string&) {
  return NotHere();
}
arrow::Result<std::shared_ptr<arrow::io::OutputStream>> RemoteFileSystem::OpenOutputStream(
    const std::string&, const std::shared_ptr<const arrow::KeyValueMetadata>&) {
  return NotHere();
}
arrow::Result<std::shared_ptr<arrow::io::OutputStream>> RemoteFileSystem::OpenAppendStream(
    const std::string&, const std::shared_ptr<const arrow::KeyValueMetadata>&) {
  return NotHere();
}

arrow::Status RemoteFile::Close() {
  closed_ = true;
  return arrow::Status::OK();
}
arrow::Result<int64_t> RemoteFile::Tell() const { return NotHere(); }
arrow::Status RemoteFile::Seek(int64_t) { return NotHere(); }
arrow::Result<int64_t> RemoteFile::Read(int64_t, void*) { return NotHere(); }
arrow::Result<std::shared_ptr<arrow::Buffer>> RemoteFile::Read(int64_t) { return NotHere(); }

}  // namespace temper
