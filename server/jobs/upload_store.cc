// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/upload_store.h"

#include <algorithm>
#include <iterator>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace temper {
namespace {

constexpr char kIncoming[] = "incoming";
constexpr size_t kDigestSize = 64;
constexpr size_t kMaxNameBytes = 200;
constexpr int64_t kMiB = 1 << 20;

bool IsDigest(std::string_view text) {
  return text.size() == kDigestSize && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

bool IsFileName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name.front() != '.' &&
         std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '/'; });
}

std::string PathOf(const v1::UploadHeader& header) { return absl::StrCat(header.sha256(), "/", header.file_name()); }

absl::Status NoRoom(std::string message) {
  return WithReason(absl::ResourceExhaustedError(std::move(message)), "NO_ROOM_FOR_UPLOADS");
}

// In whole MiB, rounded up.
std::string Mebibytes(int64_t bytes) { return absl::StrCat((bytes + kMiB - 1) / kMiB, " MiB"); }

}  // namespace

IncomingUpload::~IncomingUpload() {
  writer_.reset();
  (void)store_.files_->Delete(path_);
  store_.Release(header_.size_bytes());
}

absl::Status IncomingUpload::Write(std::string_view bytes) {
  written_ += static_cast<int64_t>(bytes.size());
  if (written_ > header_.size_bytes()) {
    return InvalidFields({{"data", absl::StrCat("has more than the ", header_.size_bytes(),
                                                " bytes that the header announced: did the "
                                                "file change while it was sent?")}});
  }
  digest_.Update(bytes);
  return writer_->Write(bytes);
}

absl::StatusOr<v1::Upload> IncomingUpload::Commit() {
  if (written_ != header_.size_bytes() || digest_.Hex() != header_.sha256()) {
    return InvalidFields(
        {{"data", absl::StrCat("is not what the header announced (", written_, " of ", header_.size_bytes(),
                               " bytes, SHA-256 ", digest_.Hex(), "): did the file change while it was sent?")}});
  }
  if (absl::Status status = writer_->Close(); !status.ok()) return status;
  return store_.Keep(header_, path_);
}

absl::StatusOr<std::unique_ptr<UploadStore>> UploadStore::Open(UploadOptions options, const Clock& clock) {
  auto files = ObjectStore::Open(options.directory.string());
  if (!files.ok()) return files.status();
  std::error_code error;
  std::filesystem::create_directories(options.directory, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat("can't create ", options.directory.string(), ": ", error.message()));
  }
  if (absl::Status status = (*files)->DeleteDirectory(kIncoming); !status.ok()) return status;
  return std::unique_ptr<UploadStore>(new UploadStore(std::move(options), clock, *std::move(files)));
}

absl::Status UploadStore::CheckHeader(const v1::UploadHeader& header) const {
  if (options_.max_file_bytes == 0) {
    return WithReason(absl::FailedPreconditionError("this server takes no uploads (--max-upload-mb is 0): put the file "
                                                    "where the server can read it"),
                      "UPLOADS_DISABLED");
  }
  std::vector<FieldViolation> violations;
  if (!IsFileName(header.file_name())) {
    violations.push_back({"header.file_name",
                          "must be a file's name without directories: 1 to 200 bytes, no control characters, not '.' "
                          "first"});
  }
  if (!IsDigest(header.sha256())) violations.push_back({"header.sha256", "must be 64 digits of 0-9 and a-f"});
  if (header.size_bytes() < 1) {
    violations.push_back({"header.size_bytes", "must be at least 1: an empty file has no samples"});
  } else if (header.size_bytes() > options_.max_file_bytes) {
    violations.push_back({"header.size_bytes",
                          absl::StrCat("has ", Mebibytes(header.size_bytes()),
                                       ", and this server takes files of at most ", Mebibytes(options_.max_file_bytes),
                                       " (--max-upload-mb): put it where the server can read it, and give that path")});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

v1::Upload UploadStore::Describe(const v1::UploadHeader& header) const {
  v1::Upload upload;
  upload.set_uri(files_->UriOf(PathOf(header)));
  return upload;
}

absl::StatusOr<v1::Upload> UploadStore::Find(const v1::UploadHeader& header) {
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  std::lock_guard lock(mutex_);  // so that Collect() does not take what is found
  const auto there = files_->Exists(PathOf(header));
  if (!there.ok()) return there.status();
  if (!*there) {
    return WithReason(absl::NotFoundError(absl::StrCat(header.file_name(), " is not there: send it")),
                      "UPLOAD_NOT_FOUND");
  }
  touched_[header.sha256()] = clock_.Monotonic();
  return Describe(header);
}

absl::Status UploadStore::CheckRoom(int64_t size) const {
  const auto files = files_->List("");
  if (!files.ok()) return files.status();
  int64_t total = incoming_bytes_;
  for (const ObjectInfo& file : *files) {
    if (!file.path.starts_with(kIncoming)) total += file.size;
  }
  if (total + size > options_.max_total_bytes) {
    return NoRoom(absl::StrCat("uploads take ", Mebibytes(total), " of ", Mebibytes(options_.max_total_bytes),
                               " (--max-uploads-mb), and the file has ", Mebibytes(size),
                               ": delete jobs whose uploads nobody needs, or put it where the server can read it"));
  }
  // The disk is the database's, too.
  std::error_code error;
  const auto space = std::filesystem::space(options_.directory, error);
  if (error) return absl::OkStatus();
  const auto available = static_cast<int64_t>(space.available) - incoming_bytes_;
  if (size <= available / 2) return absl::OkStatus();
  return NoRoom(absl::StrCat("the file has ", Mebibytes(size), ", and the server's disk ",
                             Mebibytes(std::max<int64_t>(0, available)),
                             " of free space, half of which it keeps for itself: make room, or put it where the "
                             "server can read it"));
}

absl::StatusOr<std::unique_ptr<IncomingUpload>> UploadStore::Begin(const v1::UploadHeader& header) {
  if (absl::Status status = CheckHeader(header); !status.ok()) return status;
  std::string path;
  {
    std::lock_guard lock(mutex_);
    if (absl::Status status = CheckRoom(header.size_bytes()); !status.ok()) return status;
    incoming_bytes_ += header.size_bytes();
    path = absl::StrCat(kIncoming, "/", ++last_incoming_);
  }
  auto upload = std::unique_ptr<IncomingUpload>(new IncomingUpload(*this, header, std::move(path)));
  auto writer = files_->Create(upload->path_);
  if (!writer.ok()) return writer.status();
  upload->writer_ = *std::move(writer);
  return upload;
}

absl::StatusOr<v1::Upload> UploadStore::Keep(const v1::UploadHeader& header, const std::string& path) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = files_->Move(path, PathOf(header)); !status.ok()) return status;
  touched_[header.sha256()] = clock_.Monotonic();
  return Describe(header);
}

void UploadStore::Release(int64_t size) {
  std::lock_guard lock(mutex_);
  incoming_bytes_ -= size;
}

std::string UploadStore::DigestIn(const std::string& uri) {
  constexpr std::string_view kDirectory = "/uploads/";
  const size_t at = uri.rfind(kDirectory);
  if (at == std::string::npos) return "";
  const std::string digest = uri.substr(at + kDirectory.size(), kDigestSize);
  return IsDigest(digest) ? digest : "";
}

absl::Status UploadStore::Collect(const std::function<absl::StatusOr<std::set<std::string>>()>& used) {
  const auto too_young = [this](const std::string& digest) {
    const auto touched = touched_.find(digest);
    return clock_.Monotonic() - (touched == touched_.end() ? started_ : touched->second) < options_.grace;
  };
  const auto digests = files_->ListDirectories("");
  if (!digests.ok()) return digests.status();
  std::vector<std::string> old;
  {
    std::lock_guard lock(mutex_);
    std::copy_if(digests->begin(), digests->end(), std::back_inserter(old),
                 [&](const std::string& digest) { return IsDigest(digest) && !too_young(digest); });
  }
  if (old.empty()) return absl::OkStatus();
  const auto in_use = used();
  if (!in_use.ok()) return in_use.status();
  for (const std::string& digest : old) {
    std::lock_guard lock(mutex_);
    if (in_use->contains(digest) || too_young(digest)) continue;  // asked for meanwhile
    if (absl::Status status = files_->DeleteDirectory(digest); !status.ok()) return status;
    touched_.erase(digest);
  }
  return absl::OkStatus();
}

}  // namespace temper
