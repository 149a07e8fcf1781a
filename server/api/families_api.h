// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "server/api/rpc_observer.h"
#include "temper/v1/training_service.grpc.pb.h"

namespace temper {

// What temper can train by itself. Any thread.
class FamiliesApi {
 public:
  explicit FamiliesApi(RpcObserver observer) : observer_(std::move(observer)) {}

  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListFamiliesRequest& request,
                                 v1::ListFamiliesResponse* response);

 private:
  RpcObserver observer_;
};

}  // namespace temper
