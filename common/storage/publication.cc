// SPDX-License-Identifier: Apache-2.0
#include "common/storage/publication.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/counted.h"
#include "common/failure.h"
#include "common/fault_point.h"

namespace temper {
namespace {

constexpr int kFormatVersion = 1;

// That is digested while it is in the processor's cache.
constexpr size_t kDigestBytes = 256 << 10;

std::string Below(std::string_view directory, std::string_view path) {
  std::string joined(directory);
  if (!joined.empty()) joined += '/';
  joined += path;
  return joined;
}

// Negative for what is none, or too large.
int64_t Integer(const nlohmann::json& value) { return value.is_number_integer() ? value.get<int64_t>() : -1; }

std::string ToJson(const Manifest& manifest) {
  nlohmann::ordered_json json;
  json["format_version"] = kFormatVersion;
  json["job"] = manifest.job;
  json["epoch"] = manifest.epoch;
  json["files"] = nlohmann::ordered_json::array();
  for (const ManifestFile& file : manifest.files) {
    json["files"].push_back({{"path", file.path}, {"size", file.size}, {"sha256", file.sha256}});
  }
  return json.dump(2) + "\n";
}

}  // namespace

absl::StatusOr<Manifest> ParseManifest(std::string_view text, const std::string& name) {
  auto damaged = [&](const std::string& what) {
    return WithCause(absl::DataLossError(absl::StrCat(name, ": ", what)), FailureCause::kStorage);
  };
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return damaged("not a JSON object");
  // Only type errors can be thrown below: every field is looked up with at().
  try {
    const int64_t version = Integer(json.at("format_version"));
    if (version != kFormatVersion) {
      return damaged(absl::StrCat("format version ", version, "; this build reads version ", kFormatVersion));
    }
    Manifest manifest;
    manifest.job = json.at("job").get<std::string>();
    const int64_t epoch = Integer(json.at("epoch"));
    if (epoch < 0 || epoch > INT32_MAX) return damaged("the epoch can't be right");
    manifest.epoch = static_cast<int32_t>(epoch);
    int64_t total = 0;
    for (const nlohmann::json& file : json.at("files")) {
      ManifestFile read{file.at("path").get<std::string>(), Integer(file.at("size")),
                        file.at("sha256").get<std::string>()};
      if (read.size < 0 || __builtin_add_overflow(total, read.size, &total)) {
        return damaged(absl::StrCat("the size of ", read.path, " can't be right"));
      }
      manifest.files.push_back(std::move(read));
    }
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    return damaged(error.what());
  }
}

int64_t Manifest::total_size() const {
  int64_t total = 0;
  for (const ManifestFile& file : files) total += file.size;
  return total;
}

absl::StatusOr<Manifest> ReadManifest(const ObjectStore& store, std::string_view directory) {
  const std::string path = Below(directory, kManifestName);
  absl::StatusOr<std::string> text = store.Read(path);
  if (!text.ok()) return text.status();
  return ParseManifest(*text, store.UriOf(path));
}

absl::StatusOr<Manifest> ReadManifest(std::string_view uri, StorageOptions options) {
  absl::StatusOr<std::unique_ptr<ObjectStore>> store = ObjectStore::Open(uri, options);
  if (!store.ok()) return store.status();
  return ReadManifest(**store, "");
}

absl::Status VerifyFiles(const ObjectStore& store, std::string_view directory, const Manifest& manifest) {
  constexpr int64_t kChunk = 32 << 20;
  for (const ManifestFile& file : manifest.files) {
    const std::string path = Below(directory, file.path);
    const auto damaged = [&](auto... what) {
      return WithCause(absl::DataLossError(absl::StrCat(store.UriOf(path), " ", what...)), FailureCause::kStorage);
    };
    const auto reader = store.OpenForRead(path);
    if (absl::IsNotFound(reader.status())) return damaged("is missing");
    if (!reader.ok()) return reader.status();
    if ((*reader)->size() != file.size) return damaged("has ", (*reader)->size(), " bytes instead of ", file.size);
    Sha256 digest;
    for (int64_t offset = 0; offset < file.size; offset += kChunk) {
      const auto bytes = (*reader)->ReadAt(offset, std::min(kChunk, file.size - offset));
      if (!bytes.ok()) return bytes.status();
      digest.Update(*bytes);
    }
    if (digest.Hex() != file.sha256) return damaged("is damaged: its SHA-256 is not what the manifest says");
  }
  return absl::OkStatus();
}

absl::Status Unpublish(ObjectStore& store, std::string_view directory) {
  if (absl::Status status = store.Delete(Below(directory, kManifestName)); !status.ok()) return status;
  return store.DeleteDirectory(directory);
}

PublishedFile::PublishedFile(Publication* publication, std::string path, std::unique_ptr<ObjectWriter> writer)
    : publication_(publication), path_(std::move(path)), writer_(std::move(writer)) {}

absl::Status PublishedFile::Write(std::string_view bytes) {
  for (; !bytes.empty(); bytes.remove_prefix(std::min(kDigestBytes, bytes.size()))) {
    const std::string_view piece = bytes.substr(0, kDigestBytes);
    if (absl::Status status = writer_->Write(piece); !status.ok()) return status;
    digest_.Update(piece);
    size_ += static_cast<int64_t>(piece.size());
  }
  return absl::OkStatus();
}

absl::Status PublishedFile::Close() {
  FaultPoint("rank.file.written");
  if (absl::Status status = writer_->Close(); !status.ok()) return status;
  std::vector<std::string>& open = publication_->open_;
  open.erase(std::find(open.begin(), open.end(), path_));
  publication_->Include({{path_, size_, digest_.Hex()}});
  return absl::OkStatus();
}

Publication::Publication(ObjectStore& store, std::string directory, std::string job, int32_t epoch)
    : store_(store), directory_(std::move(directory)) {
  manifest_.job = std::move(job);
  manifest_.epoch = epoch;
}

absl::StatusOr<std::unique_ptr<Publication>> Publication::Begin(ObjectStore& store, std::string directory,
                                                                std::string job, int32_t epoch) {
  absl::StatusOr<std::vector<ObjectInfo>> present = store.List(directory);
  if (!present.ok()) return present.status();
  if (!present->empty()) {
    return WithCause(absl::AlreadyExistsError(absl::StrCat(store.UriOf(directory), " exists already, with ",
                                                           Counted(static_cast<int64_t>(present->size()), "file"),
                                                           ". Choose another output place")),
                     FailureCause::kUserInput);
  }
  return std::unique_ptr<Publication>(new Publication(store, std::move(directory), std::move(job), epoch));
}

std::unique_ptr<Publication> Publication::Join(ObjectStore& store, std::string directory, std::string job,
                                               int32_t epoch) {
  std::unique_ptr<Publication> part(new Publication(store, std::move(directory), std::move(job), epoch));
  part->part_ = true;
  return part;
}

Publication::~Publication() { (void)Abort(); }

absl::StatusOr<std::unique_ptr<PublishedFile>> Publication::Create(std::string_view path) {
  if (ended_) return absl::FailedPreconditionError(absl::StrCat(uri(), " was committed or given up already"));
  const bool closed = std::any_of(manifest_.files.begin(), manifest_.files.end(),
                                  [&](const ManifestFile& file) { return file.path == path; });
  if (closed || path == kManifestName || std::find(open_.begin(), open_.end(), path) != open_.end()) {
    return absl::AlreadyExistsError(absl::StrCat(store_.UriOf(Below(directory_, path)), " would be written twice"));
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = store_.Create(Below(directory_, path));
  if (!writer.ok()) return writer.status();
  open_.emplace_back(path);
  return std::unique_ptr<PublishedFile>(new PublishedFile(this, std::string(path), *std::move(writer)));
}

absl::Status Publication::Write(std::string_view path, std::string_view bytes) {
  absl::StatusOr<std::unique_ptr<PublishedFile>> file = Create(path);
  if (!file.ok()) return file.status();
  if (absl::Status status = (*file)->Write(bytes); !status.ok()) return status;
  return (*file)->Close();
}

void Publication::Include(const std::vector<ManifestFile>& files) {
  const auto by_path = [](const ManifestFile& a, const ManifestFile& b) { return a.path < b.path; };
  std::vector<ManifestFile>& all = manifest_.files;
  for (const ManifestFile& file : files) all.insert(std::upper_bound(all.begin(), all.end(), file, by_path), file);
}

absl::Status Publication::Commit() {
  if (part_) return absl::FailedPreconditionError(absl::StrCat(uri(), " is committed by who began it"));
  if (ended_) return absl::FailedPreconditionError(absl::StrCat(uri(), " was committed or given up already"));
  if (!open_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(uri(), " cannot be committed: not written whole: ", absl::StrJoin(open_, ", ")));
  }
  absl::Status status = store_.Write(Below(directory_, kManifestName), ToJson(manifest_));
  if (status.ok()) ended_ = true;
  return status;
}

absl::StatusOr<std::unique_ptr<PublishedFile>> PublishedFolder::Create(std::string_view path) {
  return publication_.Create(Below(path_, path));
}

absl::Status PublishedFolder::Write(std::string_view path, std::string_view bytes) {
  return publication_.Write(Below(path_, path), bytes);
}

absl::Status Publication::Abort() {
  if (std::exchange(ended_, true) || part_) return absl::OkStatus();
  return store_.DeleteDirectory(directory_);
}

}  // namespace temper
