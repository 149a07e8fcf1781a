// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "common/rpc/status.h"
#include "server/api/rpc_observer.h"

namespace temper {

// Ends a unary call with what the logic returned.
template <typename Response>
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, std::string_view method,
                                 const RpcObserver& observer, absl::StatusOr<Response> result, Response* response) {
  observer(method, result.status());
  if (result.ok()) *response = *std::move(result);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(result.status()));
  return reactor;
}

}  // namespace temper
