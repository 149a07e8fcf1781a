// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/training_client.h"
#include "temper/v1/token_service.grpc.pb.h"

namespace temper {

// temper.v1.TokenService with types: one method per call, for admins. Errors are as of TrainingClient; options.stop
// ends none of these short calls. Any thread.
class TokenClient {
 public:
  explicit TokenClient(const std::shared_ptr<grpc::Channel>& channel, ClientOptions options = {});

  absl::StatusOr<v1::CreateTokenResponse> CreateToken(const v1::CreateTokenRequest& request) const;
  absl::StatusOr<v1::ListTokensResponse> ListTokens() const;
  // `token`: ID or tokens/ID.
  absl::StatusOr<v1::Token> RevokeToken(const std::string& token) const;

 private:
  const std::unique_ptr<v1::TokenService::Stub> stub_;
  const ClientOptions options_;
};

}  // namespace temper
