// SPDX-License-Identifier: Apache-2.0
#include "common/storage/object_store.h"

#include <arrow/buffer.h>
#include <arrow/filesystem/localfs.h>
#include <arrow/io/interfaces.h>
#include <arrow/result.h>
#include <arrow/status.h>
#include <arrow/util/future.h>
#include <arrow/util/io_util.h>
#include <arrow/util/thread_pool.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/failure.h"
#include "common/storage/azure.h"
#include "common/storage/gcs.h"
#include "common/storage/hub.h"
#include "common/storage/remote_file_system.h"
#include "common/storage/s3.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

// Of one request; longer ranges are read in several at a time.
constexpr int64_t kReadRequest = 8 << 20;

// Longer than a healthy store makes one wait.
constexpr std::chrono::seconds kLongWrite{5};

bool IsPartial(const std::string& path) {
  return path.ends_with(kPartialSuffix) || path.find(absl::StrCat(kPartialSuffix, "/")) != path.npos;
}

absl::Status FromErrno(int error, const char* action, const std::string& where, const std::string& detail = "") {
  std::string message = absl::StrCat(action, " ", where, ": ", error != 0 ? std::strerror(error) : detail);
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      absl::StrAppend(&message, ". Give this user access to it or choose another place");
      return WithCause(absl::PermissionDeniedError(message), FailureCause::kUserInput);
    case ENOTDIR:
    case EISDIR:
    case EEXIST:
      return WithCause(absl::FailedPreconditionError(message), FailureCause::kUserInput);
    case ENAMETOOLONG:
      return WithCause(absl::InvalidArgumentError(message), FailureCause::kUserInput);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      absl::StrAppend(&message, ". Free some space or choose another place");
      return WithCause(absl::ResourceExhaustedError(message), FailureCause::kStorage);
    default:
      return WithCause(absl::UnavailableError(message), FailureCause::kStorage);
  }
}

absl::Status FromArrow(const arrow::Status& status, const char* action, const std::string& where) {
  if (status.ok()) return absl::OkStatus();
  if (const auto ours = FromOurs(status)) {
    const std::string message = absl::StrCat(action, " ", where, ": ", std::string(ours->message()));
    return WithCause(absl::Status(ours->code(), message), CauseOf(*ours));
  }
  const int error = arrow::internal::ErrnoFromStatus(status);
  const bool of_s3 = error == 0 && status.message().find("AWS Error ") != std::string::npos;
  return of_s3 ? FromS3Error(status, absl::StrCat(action, " ", where))
               : FromErrno(error, action, where, status.message());
}

// Makes a file's contents, or a directory's entries, survive a power cut.
absl::Status SyncPath(const std::string& path, int flags, const std::string& display) {
  const int fd = ::open(path.c_str(), flags | O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FromErrno(errno, "cannot write", display);
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  // Some file systems cannot sync a directory; there is nothing to be done about it.
  if (error != 0 && error != EINVAL) return FromErrno(error, "cannot write", display);
  return absl::OkStatus();
}

std::string Join(const std::string& directory, std::string_view path) {
  std::string joined = directory;
  if (joined.back() != '/') joined += '/';
  joined += path;
  return joined;
}

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Creates a local directory with its parents, and makes each new entry durable.
absl::Status CreateDirectories(arrow::fs::FileSystem& file_system, const std::string& directory,
                               const std::string& display) {
  std::vector<std::string> missing;
  for (std::string path = directory; path != "/" && ::access(path.c_str(), F_OK) != 0; path = ParentOf(path)) {
    missing.push_back(path);
  }
  if (missing.empty()) return absl::OkStatus();
  absl::Status status = FromArrow(file_system.CreateDir(directory, /*recursive=*/true), "cannot create", display);
  for (const std::string& path : missing) {
    if (status.ok()) status = SyncPath(ParentOf(path), O_DIRECTORY, display);
  }
  return status;
}

absl::StatusOr<RemotePlace> OpenLocal(std::string_view uri) {
  std::string opened(uri);
  std::string path = opened;
  if (uri.starts_with("file:")) {
    if (!uri.starts_with("file:///")) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", opened, "\" is not a place on this machine: write file:///path, with three slashes"));
    }
    arrow::Result<std::string> parsed = arrow::fs::LocalFileSystem().PathFromUri(opened);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("\"", opened, "\" is not a URI: ", parsed.status().message()));
    }
    path = *parsed;
  } else if (!uri.starts_with('/')) {
    return absl::InvalidArgumentError(absl::StrCat("\"", opened, "\" is none of ", std::string(kStorageForms),
                                                   "; where a relative path is depends on who asks"));
  }
  if (path.find('\0') != path.npos) return absl::InvalidArgumentError("a path must not contain a zero byte");
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  while (opened.size() > 1 && opened.back() == '/' && opened != "file:///") opened.pop_back();
  return RemotePlace{std::make_shared<arrow::fs::LocalFileSystem>(), std::move(path), "", std::move(opened)};
}

// Arrow's streams close themselves when they are destroyed: an upload that can't be aborted now would become an object,
// cut off, if the store came back in that moment. Such a stream is never destroyed; it holds one part at most.
void Abandon(std::shared_ptr<arrow::io::OutputStream> stream) {
  (void)stream->Flush();  // a part that is on its way would be stored after the abort
  if (stream->Abort().ok()) return;
  static std::mutex mutex;
  static auto* const abandoned = new std::vector<std::shared_ptr<arrow::io::OutputStream>>;
  std::lock_guard lock(mutex);
  abandoned->push_back(std::move(stream));
}

}  // namespace

absl::StatusOr<std::string> PinnedUri(std::string_view uri, StorageOptions options) {
  if (SchemeOf(uri) != StorageScheme::kHub) return std::string(uri);
  const absl::StatusOr<HubPlace> place = ParseHubUri(uri);
  if (!place.ok()) return place.status();
  if (place->pinned()) return std::string(uri);
  const absl::StatusOr<HubPlace> commit = PinHub(*place, options.deadline);
  return commit.ok() ? absl::StatusOr<std::string>(commit->Uri()) : commit.status();
}

ObjectWriter::ObjectWriter(std::shared_ptr<arrow::io::OutputStream> stream, std::string path, std::string display)
    : stream_(std::move(stream)),
      path_(std::move(path)),
      partial_path_(path_.empty() ? "" : absl::StrCat(path_, kPartialSuffix)),
      display_(std::move(display)) {}

ObjectWriter::~ObjectWriter() {
  if (stream_ == nullptr) return;
  // An aborted upload never becomes an object; a local file has to be removed.
  Abandon(std::move(stream_));
  if (!partial_path_.empty()) std::remove(partial_path_.c_str());
}

absl::Status ObjectWriter::Write(std::string_view bytes) {
  if (stream_ == nullptr) return absl::FailedPreconditionError(absl::StrCat(display_, " is closed already"));
  const auto begin = std::chrono::steady_clock::now();
  arrow::Status status = stream_->Write(bytes.data(), static_cast<int64_t>(bytes.size()));
  // Who had to wait may have waited for a store that is gone: that is seen now, not when all parts were tried.
  const bool waited = std::chrono::steady_clock::now() - begin > kLongWrite;
  if (status.ok() && waited && partial_path_.empty()) status = stream_->Flush();
  return FromArrow(status, "cannot write", display_);
}

absl::Status ObjectWriter::Close() {
  if (stream_ == nullptr) return absl::FailedPreconditionError(absl::StrCat(display_, " is closed already"));
  // A close that fails does not abort an upload; a flush that fails leaves it to be aborted.
  absl::Status status = FromArrow(stream_->Flush(), "cannot write", display_);
  if (status.ok()) {
    status = FromArrow(stream_->Close(), "cannot write", display_);
  } else {
    Abandon(stream_);
  }
  if (!partial_path_.empty()) {
    if (status.ok()) status = SyncPath(partial_path_, 0, display_);
    if (status.ok() && std::rename(partial_path_.c_str(), path_.c_str()) != 0) {
      status = FromErrno(errno, "cannot write", display_, "");
    }
    if (!status.ok()) std::remove(partial_path_.c_str());
    if (status.ok()) status = SyncPath(ParentOf(path_), O_DIRECTORY, display_);
  }
  stream_ = nullptr;
  return status;
}

// The digest of what was read, as long as it was read in order.
struct ObjectReader::Check {
  const std::string expected;
  std::mutex mutex;
  Sha256 digest;
  int64_t next = 0;  // where what is digested ends
};

ObjectReader::ObjectReader(std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t size, std::string display,
                           bool local, const std::string& sha256)
    : file_(std::move(file)),
      size_(size),
      display_(std::move(display)),
      local_(local),
      check_(sha256.empty() ? nullptr : new Check{.expected = sha256}) {}

ObjectReader::~ObjectReader() = default;

absl::Status ObjectReader::CheckDigest(int64_t offset, std::string_view bytes) const {
  if (check_ == nullptr) return absl::OkStatus();
  std::lock_guard lock(check_->mutex);
  if (offset == 0) {
    check_->digest = Sha256();
    check_->next = 0;
  }
  if (offset != check_->next) return absl::OkStatus();
  check_->digest.Update(bytes);
  check_->next += static_cast<int64_t>(bytes.size());
  if (check_->next < size_ || check_->digest.Hex() == check_->expected) return absl::OkStatus();
  return WithCause(absl::DataLossError(absl::StrCat(display_, " came with the SHA-256 ", check_->digest.Hex(),
                                                    ", and the store says ", check_->expected)),
                   FailureCause::kStorage);
}

absl::StatusOr<std::string> ObjectReader::ReadAt(int64_t offset, int64_t length) const {
  // Not allocated before it is known that there are so many.
  std::string bytes(static_cast<size_t>(std::clamp<int64_t>(length, 0, size_)), '\0');
  if (absl::Status status = ReadAt(offset, length, bytes.data()); !status.ok()) return status;
  return bytes;
}

absl::Status ObjectReader::ReadAt(int64_t offset, int64_t length, char* out) const {
  if (offset < 0 || length < 0 || offset > size_ || length > size_ - offset) {
    return absl::OutOfRangeError(
        absl::StrCat("cannot read ", length, " bytes at ", offset, " of ", display_, ", which has ", size_));
  }
  const int64_t request = local_ ? length : kReadRequest;
  std::vector<arrow::Future<int64_t>> others;  // all but the first
  arrow::Result<int64_t> first = 0;
  for (int64_t begin = std::min(request, length); begin < length; begin += request) {
    auto read = [file = file_, at = offset + begin, size = std::min(request, length - begin), to = out + begin] {
      return file->ReadAt(at, size, to);
    };
    auto submitted = arrow::io::default_io_context().executor()->Submit(std::move(read));
    others.push_back(submitted.ok() ? *submitted : arrow::Future<int64_t>::MakeFinished(submitted.status()));
  }
  if (length > 0) first = file_->ReadAt(offset, std::min(request, length), out);
  int64_t total = first.ok() ? *first : 0;
  arrow::Status status = first.status();
  for (const arrow::Future<int64_t>& other : others) {  // all of them: they write to `out`
    status &= other.status();
    if (other.status().ok()) total += *other.result();
  }
  if (!status.ok()) return FromArrow(status, "cannot read", display_);
  if (total != length) {
    return WithCause(absl::DataLossError(absl::StrCat(display_, " became shorter while it was read")),
                     FailureCause::kStorage);
  }
  return CheckDigest(offset, {out, static_cast<size_t>(length)});
}

ObjectStore::ObjectStore(RemotePlace place, bool read_only)
    : file_system_(std::move(place.file_system)),
      root_(std::move(place.root)),
      uri_(std::move(place.uri)),
      endpoint_(std::move(place.endpoint)),
      local_(endpoint_.empty()),
      read_only_(read_only) {}

ObjectStore::~ObjectStore() = default;

absl::StatusOr<std::unique_ptr<ObjectStore>> ObjectStore::Open(std::string_view uri, StorageOptions options) {
  const std::optional<StorageScheme> scheme = SchemeOf(uri);
  if (!scheme) {
    return absl::UnimplementedError(
        absl::StrCat("\"", std::string(WithoutParameters(uri)), "\" is none of ", std::string(kStorageForms)));
  }
  absl::StatusOr<RemotePlace> place = [&]() -> absl::StatusOr<RemotePlace> {
    switch (*scheme) {
      case StorageScheme::kLocal:
        return OpenLocal(uri);
      case StorageScheme::kS3:
        return OpenS3(uri, options.deadline);
      case StorageScheme::kGcs:
        return OpenGcs(uri, options.deadline);
      case StorageScheme::kAzure:
        return OpenAzure(uri, options.deadline);
      case StorageScheme::kHub:
        return OpenHub(uri, options.deadline);
    }
    return absl::InternalError("a scheme that is none");
  }();
  if (!place.ok()) return place.status();
  return std::unique_ptr<ObjectStore>(new ObjectStore(*std::move(place), scheme == StorageScheme::kHub));
}

std::string ObjectStore::UriOf(std::string_view path) const { return path.empty() ? uri_ : UriBelow(uri_, path); }

// For messages.
std::string ObjectStore::Display(std::string_view path) const {
  return local_ ? UriOf(path) : absl::StrCat(UriOf(path), " (at ", endpoint_, ")");
}

// Remote stores don't tell a missing object from a missing bucket: asked when something was not there, until the bucket
// has been seen.
absl::Status ObjectStore::CheckBucket() const {
  if (local_ || read_only_ || bucket_seen_) return absl::OkStatus();
  const std::string bucket = root_.substr(0, root_.find('/'));
  const arrow::Result<arrow::fs::FileInfo> info = file_system_->GetFileInfo(bucket);
  if (info.ok() && info->type() == arrow::fs::FileType::NotFound) {
    return NoSuchBucket(absl::StrCat("there is no bucket ", bucket, " at ", endpoint_, ", so nothing is at ", uri_));
  }
  // Who may not look at the bucket itself may still use what is in it.
  bucket_seen_ = true;
  return absl::OkStatus();
}

absl::Status ObjectStore::CheckCanWrite() const {
  if (!read_only_) return absl::OkStatus();
  return WithCause(
      absl::PermissionDeniedError(absl::StrCat("cannot write ", uri_, ": a hub is only read. Choose another place")),
      FailureCause::kUserInput);
}

absl::StatusOr<std::string> ObjectStore::FullPath(std::string_view path) const {
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view component = path.substr(begin, end - begin);
    if (component.empty() || component == "." || component == ".." || component.find('\0') != component.npos) {
      return absl::InvalidArgumentError(absl::StrCat("\"", std::string(path), "\" is not a path below ", uri_));
    }
    begin = end + 1;
  }
  return Join(root_, path);
}

absl::StatusOr<std::unique_ptr<ObjectWriter>> ObjectStore::Create(std::string_view path) {
  if (absl::Status status = CheckCanWrite(); !status.ok()) return status;
  absl::StatusOr<std::string> full = FullPath(path);
  if (!full.ok()) return full.status();
  const std::string display = Display(path);
  if (local_) {
    absl::Status status = CreateDirectories(*file_system_, ParentOf(*full), display);
    if (!status.ok()) return status;
  }
  const std::string target = local_ ? absl::StrCat(*full, kPartialSuffix) : *full;
  arrow::Result<std::shared_ptr<arrow::io::OutputStream>> stream = file_system_->OpenOutputStream(target, nullptr);
  if (!stream.ok()) return FromArrow(stream.status(), "cannot create", display);
  return std::unique_ptr<ObjectWriter>(new ObjectWriter(*stream, local_ ? *full : "", display));
}

absl::Status ObjectStore::Write(std::string_view path, std::string_view bytes) {
  absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = Create(path);
  if (!writer.ok()) return writer.status();
  if (absl::Status status = (*writer)->Write(bytes); !status.ok()) return status;
  return (*writer)->Close();
}

absl::StatusOr<std::unique_ptr<ObjectReader>> ObjectStore::OpenForRead(std::string_view path) const {
  const absl::StatusOr<arrow::fs::FileInfo> info = InfoOf(path);
  if (!info.ok()) return info.status();
  const std::string display = Display(path);
  if (info->type() == arrow::fs::FileType::NotFound) return FromErrno(ENOENT, "cannot read", display);
  if (info->type() == arrow::fs::FileType::Directory) return FromErrno(EISDIR, "cannot read", display);
  arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> file = file_system_->OpenInputFile(*info);
  if (!file.ok()) return FromArrow(file.status(), "cannot read", display);
  arrow::Result<int64_t> size = (*file)->GetSize();
  if (!size.ok()) return FromArrow(size.status(), "cannot read", display);
  const auto* remote = dynamic_cast<const RemoteFile*>(file->get());
  return std::unique_ptr<ObjectReader>(
      new ObjectReader(*file, *size, display, local_, remote != nullptr ? remote->sha256() : ""));
}

absl::StatusOr<std::string> ObjectStore::Read(std::string_view path, int64_t max_size) const {
  absl::StatusOr<std::unique_ptr<ObjectReader>> reader = OpenForRead(path);
  if (!reader.ok()) return reader.status();
  if ((*reader)->size() > max_size) {
    return absl::FailedPreconditionError(
        absl::StrCat(UriOf(path), " has ", (*reader)->size(), " bytes; at most ", max_size, " are expected"));
  }
  return (*reader)->ReadAt(0, (*reader)->size());
}

absl::StatusOr<std::vector<arrow::fs::FileInfo>> ObjectStore::Select(std::string_view directory, bool recursive) const {
  arrow::fs::FileSelector selector;
  if (directory.empty()) {
    selector.base_dir = root_;
  } else {
    absl::StatusOr<std::string> full = FullPath(directory);
    if (!full.ok()) return full.status();
    selector.base_dir = *full;
  }
  selector.recursive = recursive;
  selector.allow_not_found = true;
  arrow::Result<arrow::fs::FileInfoVector> infos = file_system_->GetFileInfo(selector);
  if (!infos.ok()) return FromArrow(infos.status(), "cannot list", Display(directory));
  if (infos->empty()) {
    if (absl::Status bucket = CheckBucket(); !bucket.ok()) return bucket;
  }
  return *std::move(infos);
}

absl::StatusOr<std::vector<ObjectInfo>> ObjectStore::List(std::string_view directory) const {
  const auto infos = Select(directory, /*recursive=*/true);
  if (!infos.ok()) return infos.status();
  const size_t prefix = root_ == "/" ? 1 : root_.size() + 1;
  std::vector<ObjectInfo> objects;
  for (const arrow::fs::FileInfo& info : *infos) {
    if (info.type() != arrow::fs::FileType::File || IsPartial(info.path())) continue;
    objects.push_back({info.path().substr(prefix), info.size()});
  }
  std::sort(objects.begin(), objects.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return objects;
}

absl::StatusOr<std::vector<std::string>> ObjectStore::ListDirectories(std::string_view directory) const {
  const auto infos = Select(directory, /*recursive=*/false);
  if (!infos.ok()) return infos.status();
  std::vector<std::string> names;
  for (const arrow::fs::FileInfo& info : *infos) {
    if (info.type() == arrow::fs::FileType::Directory && !IsPartial(info.path())) names.push_back(info.base_name());
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<arrow::fs::FileInfo> ObjectStore::InfoOf(std::string_view path) const {
  absl::StatusOr<std::string> full = FullPath(path);
  if (!full.ok()) return full.status();
  arrow::Result<arrow::fs::FileInfo> info = file_system_->GetFileInfo(*full);
  if (!info.ok()) return FromArrow(info.status(), "cannot read", Display(path));
  if (info->type() == arrow::fs::FileType::NotFound) {
    if (absl::Status bucket = CheckBucket(); !bucket.ok()) return bucket;
  }
  return *std::move(info);
}

absl::StatusOr<bool> ObjectStore::Exists(std::string_view path) const {
  const absl::StatusOr<arrow::fs::FileInfo> info = InfoOf(path);
  if (!info.ok()) return info.status();
  return info->type() == arrow::fs::FileType::File;
}

absl::StatusOr<bool> ObjectStore::IsDirectory(std::string_view path) const {
  const absl::StatusOr<arrow::fs::FileInfo> info = InfoOf(path);
  if (!info.ok()) return info.status();
  return info->type() == arrow::fs::FileType::Directory;
}

absl::Status ObjectStore::Move(std::string_view from, std::string_view to) {
  if (absl::Status status = CheckCanWrite(); !status.ok()) return status;
  const absl::StatusOr<std::string> source = FullPath(from), target = FullPath(to);
  if (!source.ok()) return source.status();
  if (!target.ok()) return target.status();
  const std::string display = Display(to);
  if (!local_) {
    const absl::StatusOr<bool> exists = Exists(from);
    if (!exists.ok()) return exists.status();
    if (!*exists) return FromErrno(ENOENT, "cannot read", Display(from));
  }
  if (local_) {
    absl::Status status = CreateDirectories(*file_system_, ParentOf(*target), display);
    if (!status.ok()) return status;
  }
  absl::Status status = FromArrow(file_system_->Move(*source, *target), "cannot write", display);
  if (status.ok() && local_) status = SyncPath(ParentOf(*target), O_DIRECTORY, display);
  return status;
}

absl::Status ObjectStore::Delete(std::string_view path) {
  if (absl::Status status = CheckCanWrite(); !status.ok()) return status;
  absl::StatusOr<bool> exists = Exists(path);
  if (!exists.ok()) return exists.status();
  if (!*exists) return absl::OkStatus();
  return FromArrow(file_system_->DeleteFile(*FullPath(path)), "cannot delete", Display(path));
}

absl::Status ObjectStore::DeleteDirectory(std::string_view directory) {
  if (absl::Status status = CheckCanWrite(); !status.ok()) return status;
  absl::StatusOr<std::string> full = FullPath(directory);
  if (!full.ok()) return full.status();
  arrow::Result<arrow::fs::FileInfo> info = file_system_->GetFileInfo(*full);
  if (!info.ok()) return FromArrow(info.status(), "cannot delete", Display(directory));
  if (info->type() == arrow::fs::FileType::NotFound) return absl::OkStatus();
  absl::Status status = FromArrow(file_system_->DeleteDir(*full), "cannot delete", Display(directory));
  if (!status.ok() && !local_) {
    // Arrow deletes objects and what marks directories in one request, whose order some servers mind: what counts is
    // that no object is left.
    const absl::StatusOr<std::vector<ObjectInfo>> left = List(directory);
    if (left.ok() && left->empty()) return absl::OkStatus();
  }
  return status;
}

absl::Status ObjectStore::CheckWritable(std::string_view directory) {
  const std::string name = absl::StrCat(".temper-write-check-", ::getpid());
  const std::string path = directory.empty() ? name : Join(std::string(directory), name);
  if (absl::Status status = Write(path, "x"); !status.ok()) return status;
  return Delete(path);
}

std::optional<std::string> ObjectStore::LocalPath(std::string_view path) const {
  if (!local_) return std::nullopt;
  if (path.empty()) return root_;
  absl::StatusOr<std::string> full = FullPath(path);
  if (!full.ok()) return std::nullopt;
  return *full;
}

}  // namespace temper
