// SPDX-License-Identifier: Apache-2.0
#include "server/api/artifacts_api.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/digest.h"
#include "common/rpc/status.h"
#include "common/storage/object_store.h"
#include "common/storage/publication.h"
#include "server/api/unary_answer.h"

namespace temper {
namespace {

constexpr int64_t kChunkSize = 1 << 20;  // of a message
constexpr int64_t kReadSize = 8 << 20;   // of what is read at a time: a remote store takes a request for each

// The published directory that a request is about.
struct Directory {
  std::string what;  // for messages: "the export of jobs/x"
  std::string uri;   // empty: there is none yet
  bool checkpoint = false;
};

absl::StatusOr<Directory> CheckpointDirectoryOf(const JobController& controller, const std::string& job_name,
                                                const std::string& step) {
  const auto checkpoints = controller.Checkpoints(job_name);
  if (!checkpoints.ok()) return checkpoints.status();
  std::vector<int64_t> steps;
  for (const v1::Checkpoint& checkpoint : *checkpoints) {
    if (absl::StrCat(checkpoint.step()) == step) {
      return Directory{absl::StrCat("the checkpoint ", step, " of ", job_name), checkpoint.uri(), true};
    }
    steps.push_back(checkpoint.step());
  }
  return absl::NotFoundError(absl::StrCat(job_name, " has no checkpoint ", step,
                                          steps.empty() ? "; it has none" : "; it has ", absl::StrJoin(steps, ", ")));
}

absl::StatusOr<Directory> FindDirectory(const JobController& controller, const std::string& parent) {
  constexpr std::string_view kCheckpoints = "/checkpoints/";
  if (const size_t at = parent.find(kCheckpoints); at != std::string::npos) {
    return CheckpointDirectoryOf(controller, parent.substr(0, at), parent.substr(at + kCheckpoints.size()));
  }
  const auto job = controller.Get(parent);
  if (!job.ok()) return job.status();
  return Directory{absl::StrCat("the export of ", parent), job->export_uri(), false};
}

void Add(const std::string& path, int64_t size, const std::string& sha256, v1::ListArtifactsResponse& response) {
  v1::Artifact* artifact = response.add_artifacts();
  artifact->set_path(path);
  artifact->set_size_bytes(size);
  artifact->set_sha256(sha256);
}

absl::StatusOr<v1::ListArtifactsResponse> ListFiles(const Directory& directory) {
  v1::ListArtifactsResponse response;
  if (directory.uri.empty()) return response;
  const auto unreadable = [&](const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat(directory.what, " at ", directory.uri, " can't be read: ", status.message()));
  };
  const auto manifest = ReadManifest(directory.uri, {kShortStorageDeadline});
  if (!manifest.ok()) return unreadable(manifest.status());
  for (const ManifestFile& file : manifest->files) Add(file.path, file.size, file.sha256, response);
  if (directory.checkpoint) {
    // A copy of a checkpoint is one only with its manifest.
    const auto store = ObjectStore::Open(directory.uri, {kShortStorageDeadline});
    if (!store.ok()) return unreadable(store.status());
    const auto text = (*store)->Read(kManifestName);
    if (!text.ok()) return unreadable(text.status());
    Add(std::string(kManifestName), static_cast<int64_t>(text->size()), Sha256Hex(*text), response);
  }
  return response;
}

}  // namespace

absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(const JobController& controller, const std::string& parent) {
  const auto directory = FindDirectory(controller, parent);
  if (!directory.ok()) return directory.status();
  return ListFiles(*directory);
}

absl::StatusOr<OpenedArtifact> OpenArtifact(const JobController& controller, const v1::ReadArtifactRequest& request) {
  if (request.path().empty()) return InvalidFields({{"path", "is required, as ListArtifacts gives it"}});
  if (request.offset() < 0)
    return InvalidFields({{"offset", absl::StrCat("must be at least 0, not ", request.offset())}});
  const auto directory = FindDirectory(controller, request.parent());
  if (!directory.ok()) return directory.status();
  const auto list = ListFiles(*directory);
  if (!list.ok()) return list.status();
  const auto& artifacts = list->artifacts();
  const auto artifact = std::find_if(artifacts.begin(), artifacts.end(),
                                     [&](const v1::Artifact& file) { return file.path() == request.path(); });
  if (artifact == artifacts.end()) {
    return absl::NotFoundError(absl::StrCat(directory->what, " has no file '", request.path(),
                                            artifacts.empty() ? "': there is no export yet" : "'"));
  }
  if (request.offset() > artifact->size_bytes()) {
    return absl::OutOfRangeError(absl::StrCat("offset ", request.offset(), " is past the end of '", request.path(),
                                              "', which has ", artifact->size_bytes(), " bytes"));
  }
  auto store = ObjectStore::Open(directory->uri, {kShortStorageDeadline});
  if (!store.ok()) return store.status();
  auto reader = (*store)->OpenForRead(request.path());
  if (!reader.ok()) return reader.status();
  return OpenedArtifact{.reader = *std::move(reader), .sha256 = artifact->sha256()};
}

namespace {

using std::chrono::steady_clock;

// One stream: a chunk is read, written, and its completion reads the next.
class ReadStream final : public grpc::ServerWriteReactor<v1::ReadArtifactResponse>, public Transfer {
 public:
  ReadStream(TransferWatch& watch, const RpcObserver& observer, grpc::CallbackServerContext* context, int64_t offset,
             std::unique_ptr<StreamPlace> place)
      : watch_(watch), observer_(observer), context_(context), place_(std::move(place)), offset_(offset) {}

  void Start(absl::StatusOr<OpenedArtifact> artifact) {
    if (!artifact.ok()) return End(artifact.status());
    reader_ = std::move(artifact->reader);
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (absl::Status status = StopWaiting(); !status.ok()) return End(status);
    ok ? WriteNext() : End(absl::CancelledError("the client has gone"));
  }

  // A status would wait behind the bytes that the client does not take.
  void EndIfWaitingSince(steady_clock::time_point time, const std::string& why) override {
    std::lock_guard lock(mutex_);
    if (!waiting_since_ || *waiting_since_ > time || !cut_off_.ok()) return;
    cut_off_ = absl::DeadlineExceededError(why);
    context_->TryCancel();  // the context lives as long as a write is under way
  }

  void OnDone() override { watch_.Remove(this); }

 private:
  // Why the stream has been cut off meanwhile; OK: it goes on.
  absl::Status StopWaiting() {
    std::lock_guard lock(mutex_);
    waiting_since_.reset();
    return cut_off_;
  }

  void WriteNext() {
    if (sent_ == piece_.size()) {
      const int64_t length = std::min(kReadSize, reader_->size() - offset_);
      if (length <= 0) return End(absl::OkStatus());
      auto bytes = reader_->ReadAt(offset_, length);
      if (!bytes.ok()) return End(bytes.status());
      offset_ += length;
      piece_ = *std::move(bytes);
      sent_ = 0;
    }
    chunk_.set_data(piece_.substr(sent_, kChunkSize));
    sent_ += chunk_.data().size();
    std::lock_guard lock(mutex_);
    waiting_since_ = steady_clock::now();
    StartWrite(&chunk_);
  }

  void End(const absl::Status& status) {
    observer_("ReadArtifact", status);
    Finish(ToGrpcStatus(status));
  }

  TransferWatch& watch_;
  const RpcObserver& observer_;
  grpc::CallbackServerContext* const context_;
  const std::unique_ptr<StreamPlace> place_;
  std::unique_ptr<ObjectReader> reader_;
  int64_t offset_;     // of what comes after the piece
  std::string piece_;  // those from sent_ on are to be sent
  size_t sent_ = 0;
  v1::ReadArtifactResponse chunk_;

  std::mutex mutex_;
  // Guarded by mutex_:
  std::optional<steady_clock::time_point> waiting_since_;  // for the client to take the chunk
  absl::Status cut_off_;
};

}  // namespace

grpc::ServerUnaryReactor* ArtifactsApi::List(grpc::CallbackServerContext* context,
                                             const v1::ListArtifactsRequest& request,
                                             v1::ListArtifactsResponse* response) {
  return Answer(context, "ListArtifacts", observer_, ListArtifacts(controller_, request.parent()), response);
}

grpc::ServerWriteReactor<v1::ReadArtifactResponse>* ArtifactsApi::Read(grpc::CallbackServerContext* context,
                                                                       const v1::ReadArtifactRequest& request,
                                                                       std::unique_ptr<StreamPlace> place) {
  const auto stream = std::make_shared<ReadStream>(watch_, observer_, context, request.offset(), std::move(place));
  watch_.Add(stream);
  stream->Start(OpenArtifact(controller_, request));
  return stream.get();
}

}  // namespace temper
