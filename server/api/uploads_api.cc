// SPDX-License-Identifier: Apache-2.0
#include "server/api/uploads_api.h"

#include <grpcpp/server_context.h>

#include <memory>

#include "common/rpc/status.h"

namespace temper {
namespace {

class UploadStream final : public grpc::ServerReadReactor<v1::UploadFileRequest> {
 public:
  UploadStream(UploadStore& store, const RpcObserver& observer, grpc::CallbackServerContext* context,
               v1::Upload* response, std::unique_ptr<StreamPlace> place)
      : store_(store), observer_(observer), context_(context), response_(response), place_(std::move(place)) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End();
    if (absl::Status status = Take(); !status.ok()) return Finish(status);
    StartRead(&request_);
  }

  void OnDone() override { delete this; }

 private:
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
  const RpcObserver& observer_;
  grpc::CallbackServerContext* const context_;
  v1::Upload* const response_;
  const std::unique_ptr<StreamPlace> place_;
  v1::UploadFileRequest request_;
  v1::UploadHeader header_;
  bool has_header_ = false;
  std::unique_ptr<IncomingUpload> incoming_;
};

}  // namespace

grpc::ServerReadReactor<v1::UploadFileRequest>* UploadsApi::Upload(grpc::CallbackServerContext* context,
                                                                   v1::Upload* response,
                                                                   std::unique_ptr<StreamPlace> place) {
  // Deletes itself when it is done.
  return new UploadStream(store_, observer_, context, response, std::move(place));
}

}  // namespace temper
