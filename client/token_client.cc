// SPDX-License-Identifier: Apache-2.0
#include "client/token_client.h"

#include <grpcpp/client_context.h>

#include <chrono>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace temper {
namespace {

using Stub = v1::TokenService::Stub;

template <typename Request, typename Response>
absl::StatusOr<Response> Unary(Stub& stub,
                               grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                               const Request& request, const ClientOptions& options) {
  grpc::ClientContext context;
  if (!options.token.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", options.token));
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(options.deadline));
  Response response;
  if (auto status = FromGrpcStatus((stub.*method)(&context, request, &response)); !status.ok()) return status;
  return response;
}

}  // namespace

TokenClient::TokenClient(const std::shared_ptr<grpc::Channel>& channel, ClientOptions options)
    : stub_(v1::TokenService::NewStub(channel)), options_(std::move(options)) {}

absl::StatusOr<v1::CreateTokenResponse> TokenClient::CreateToken(const v1::CreateTokenRequest& request) const {
  return Unary(*stub_, &Stub::CreateToken, request, options_);
}

absl::StatusOr<v1::ListTokensResponse> TokenClient::ListTokens() const {
  return Unary(*stub_, &Stub::ListTokens, v1::ListTokensRequest(), options_);
}

absl::StatusOr<v1::Token> TokenClient::RevokeToken(const std::string& token) const {
  v1::RevokeTokenRequest request;
  request.set_name(absl::StartsWith(token, "tokens/") ? token : absl::StrCat("tokens/", token));
  return Unary(*stub_, &Stub::RevokeToken, request, options_);
}

}  // namespace temper
