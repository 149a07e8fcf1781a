// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/api/guard.h"
#include "server/api/rpc_observer.h"
#include "server/auth/token_store.h"
#include "temper/v1/token_service.grpc.pb.h"

namespace temper {

// TokenService: the token store's calls, as they are.
class TokensApi final : public v1::TokenService::CallbackService {
 public:
  // `tokens` and `guard` must outlive it. Null: the server asks for none.
  TokensApi(TokenStore* tokens, const Guard& guard, RpcObserver observer)
      : tokens_(tokens), guard_(guard), observer_(std::move(observer)) {}

  grpc::ServerUnaryReactor* CreateToken(grpc::CallbackServerContext* context, const v1::CreateTokenRequest* request,
                                        v1::CreateTokenResponse* response) override;
  grpc::ServerUnaryReactor* ListTokens(grpc::CallbackServerContext* context, const v1::ListTokensRequest* request,
                                       v1::ListTokensResponse* response) override;
  grpc::ServerUnaryReactor* RevokeToken(grpc::CallbackServerContext* context, const v1::RevokeTokenRequest* request,
                                        v1::Token* response) override;

 private:
  TokenStore* const tokens_;
  const Guard& guard_;
  const RpcObserver observer_;
};

}  // namespace temper
