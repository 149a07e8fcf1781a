// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <utility>

#include "server/api/rpc_observer.h"
#include "server/api/transfer_watch.h"
#include "server/auth/stream_limiter.h"
#include "server/jobs/upload_store.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// UploadFile. A stream holds no thread: a message is read, written to the disk, and the next one is asked for.
class UploadsApi {
 public:
  // `store` and `watch` must outlive every stream.
  UploadsApi(UploadStore& store, TransferWatch& watch, RpcObserver observer)
      : store_(store), watch_(watch), observer_(std::move(observer)) {}

  // The stream keeps `place` until it is done.
  grpc::ServerReadReactor<v1::UploadFileRequest>* Upload(grpc::CallbackServerContext* context, v1::Upload* response,
                                                         std::unique_ptr<StreamPlace> place);

 private:
  UploadStore& store_;
  TransferWatch& watch_;
  RpcObserver observer_;
};

}  // namespace temper
