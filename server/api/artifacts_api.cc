// SPDX-License-Identifier: Apache-2.0
#include "server/api/artifacts_api.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"
#include "common/storage/object_store.h"
#include "common/storage/publication.h"
#include "server/api/unary_answer.h"

namespace temper {
namespace {

constexpr int64_t kChunkSize = 1 << 20;

absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(const JobController& controller, const std::string& job_name) {
  const auto job = controller.Get(job_name);
  if (!job.ok()) return job.status();
  v1::ListArtifactsResponse response;
  if (job->export_uri().empty()) return response;
  const auto manifest = ReadManifest(job->export_uri());
  if (!manifest.ok()) {
    return absl::Status(manifest.status().code(), absl::StrCat("the export of ", job_name, " at ", job->export_uri(),
                                                               " can't be read: ", manifest.status().message()));
  }
  for (const ManifestFile& file : manifest->files) {
    v1::Artifact* artifact = response.add_artifacts();
    artifact->set_path(file.path);
    artifact->set_size_bytes(file.size);
    artifact->set_sha256(file.sha256);
  }
  return response;
}

absl::StatusOr<std::unique_ptr<ObjectReader>> OpenArtifact(const JobController& controller,
                                                           const v1::ReadArtifactRequest& request) {
  if (request.path().empty()) return InvalidFields({{"path", "is required, as ListArtifacts gives it"}});
  if (request.offset() < 0)
    return InvalidFields({{"offset", absl::StrCat("must be at least 0, not ", request.offset())}});
  const auto job = controller.Get(request.parent());
  if (!job.ok()) return job.status();
  const auto list = ListArtifacts(controller, request.parent());
  if (!list.ok()) return list.status();
  const auto& artifacts = list->artifacts();
  const auto artifact = std::find_if(artifacts.begin(), artifacts.end(),
                                     [&](const v1::Artifact& file) { return file.path() == request.path(); });
  if (artifact == artifacts.end()) {
    return absl::NotFoundError(absl::StrCat("the export of ", request.parent(), " has no file '", request.path(),
                                            artifacts.empty() ? "': there is no export yet" : "'"));
  }
  if (request.offset() > artifact->size_bytes()) {
    return absl::OutOfRangeError(absl::StrCat("offset ", request.offset(), " is past the end of '", request.path(),
                                              "', which has ", artifact->size_bytes(), " bytes"));
  }
  auto store = ObjectStore::Open(job->export_uri());
  if (!store.ok()) return store.status();
  return (*store)->OpenForRead(request.path());
}

// One stream: a chunk is read, written, and its completion reads the next.
class ReadStream final : public grpc::ServerWriteReactor<v1::ReadArtifactResponse> {
 public:
  ReadStream(const RpcObserver& observer, int64_t offset) : observer_(observer), offset_(offset) {}

  void Start(absl::StatusOr<std::unique_ptr<ObjectReader>> reader) {
    if (!reader.ok()) return End(reader.status());
    reader_ = *std::move(reader);
    WriteNext();
  }

  void OnWriteDone(bool ok) override { ok ? WriteNext() : End(absl::CancelledError("the client has gone")); }
  void OnDone() override { delete this; }

 private:
  void WriteNext() {
    const int64_t length = std::min(kChunkSize, reader_->size() - offset_);
    if (length <= 0) return End(absl::OkStatus());
    auto bytes = reader_->ReadAt(offset_, length);
    if (!bytes.ok()) return End(bytes.status());
    offset_ += length;
    chunk_.set_data(*std::move(bytes));
    StartWrite(&chunk_);
  }

  void End(const absl::Status& status) {
    observer_("ReadArtifact", status);
    Finish(ToGrpcStatus(status));
  }

  const RpcObserver& observer_;
  std::unique_ptr<ObjectReader> reader_;
  int64_t offset_;
  v1::ReadArtifactResponse chunk_;
};

}  // namespace

grpc::ServerUnaryReactor* ArtifactsApi::List(grpc::CallbackServerContext* context,
                                             const v1::ListArtifactsRequest& request,
                                             v1::ListArtifactsResponse* response) {
  return Answer(context, "ListArtifacts", observer_, ListArtifacts(controller_, request.parent()), response);
}

grpc::ServerWriteReactor<v1::ReadArtifactResponse>* ArtifactsApi::Read(grpc::CallbackServerContext* context,
                                                                       const v1::ReadArtifactRequest& request) {
  auto* stream = new ReadStream(observer_, request.offset());  // deletes itself when it is done
  stream->Start(OpenArtifact(controller_, request));
  return stream;
}

}  // namespace temper
