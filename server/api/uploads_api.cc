// SPDX-License-Identifier: Apache-2.0
#include "server/api/uploads_api.h"

#include <grpcpp/server_context.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "common/rpc/status.h"

namespace temper {
namespace {

using std::chrono::steady_clock;

class UploadStream final : public grpc::ServerReadReactor<v1::UploadFileRequest>, public Transfer {
 public:
  UploadStream(UploadStore& store, TransferWatch& watch, const RpcObserver& observer,
               grpc::CallbackServerContext* context, v1::Upload* response, std::unique_ptr<StreamPlace> place)
      : store_(store),
        watch_(watch),
        observer_(observer),
        context_(context),
        response_(response),
        place_(std::move(place)) {}

  void ReadNext() {
    std::lock_guard lock(mutex_);
    waiting_since_ = steady_clock::now();
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!StopWaiting()) return;  // the watch has ended it
    if (!ok) return End();
    if (absl::Status status = Take(); !status.ok()) return Finish(status);
    ReadNext();
  }

  void EndIfWaitingSince(steady_clock::time_point time, const std::string& why) override {
    if (StopWaiting(time)) Finish(absl::DeadlineExceededError(why));
  }

  void OnDone() override { watch_.Remove(this); }

 private:
  // True: it was waiting for the client, since `time` at the latest, and now the caller has the stream to itself.
  bool StopWaiting(steady_clock::time_point time = steady_clock::time_point::max()) {
    std::lock_guard lock(mutex_);
    if (!waiting_since_ || *waiting_since_ > time) return false;
    waiting_since_.reset();
    return true;
  }

  absl::Status Take() {
    if (request_.has_header()) {
      if (has_header_) return InvalidFields({{"header", "was sent before"}});
      has_header_ = true;
      header_ = request_.header();
      return absl::OkStatus();
    }
    if (!has_header_) return InvalidFields({{"header", "is required, before any data"}});
    if (incoming_ == nullptr) {
      auto begun = store_.Begin(header_);
      if (!begun.ok()) return begun.status();
      incoming_ = *std::move(begun);
    }
    return incoming_->Write(request_.data());
  }

  // The client has said all that it will say, or is gone.
  void End() {
    if (context_->IsCancelled()) return Finish(absl::CancelledError("the client has gone"));
    if (!has_header_) return Finish(InvalidFields({{"header", "is required"}}));
    auto upload = incoming_ == nullptr ? store_.Find(header_) : incoming_->Commit();
    if (upload.ok()) *response_ = *std::move(upload);
    Finish(upload.status());
  }

  void Finish(const absl::Status& status) {
    incoming_.reset();
    observer_("UploadFile", status);
    ServerReadReactor::Finish(ToGrpcStatus(status));
  }

  UploadStore& store_;
  TransferWatch& watch_;
  const RpcObserver& observer_;
  grpc::CallbackServerContext* const context_;
  v1::Upload* const response_;
  const std::unique_ptr<StreamPlace> place_;
  v1::UploadFileRequest request_;
  v1::UploadHeader header_;
  bool has_header_ = false;
  std::unique_ptr<IncomingUpload> incoming_;

  std::mutex mutex_;
  std::optional<steady_clock::time_point> waiting_since_;  // guarded by mutex_
};

}  // namespace

grpc::ServerReadReactor<v1::UploadFileRequest>* UploadsApi::Upload(grpc::CallbackServerContext* context,
                                                                   v1::Upload* response,
                                                                   std::unique_ptr<StreamPlace> place) {
  const auto stream = std::make_shared<UploadStream>(store_, watch_, observer_, context, response, std::move(place));
  watch_.Add(stream);
  stream->ReadNext();
  return stream.get();
}

}  // namespace temper
