// SPDX-License-Identifier: Apache-2.0
#include "server/api/tokens_api.h"

#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/timestamp.h"
#include "server/api/audit.h"
#include "server/api/unary_answer.h"

namespace temper {
namespace {

constexpr std::string_view kCollection = "tokens/";
constexpr int64_t kLongestLifetime = int64_t{100} * 366 * 86'400;  // seconds

v1::Token ToProto(const TokenRecord& record) {
  v1::Token token;
  token.set_name(absl::StrCat(std::string(kCollection), record.id));
  token.set_identity(record.identity.name);
  token.set_role(static_cast<v1::Role>(record.identity.role));
  *token.mutable_create_time() = ToTimestamp(record.create_time);
  if (record.expire_time) *token.mutable_expire_time() = ToTimestamp(*record.expire_time);
  if (record.revoke_time) *token.mutable_revoke_time() = ToTimestamp(*record.revoke_time);
  return token;
}

absl::StatusOr<v1::CreateTokenResponse> Create(TokenStore& tokens, const v1::CreateTokenRequest& request) {
  const bool known = v1::Role_IsValid(request.role()) && request.role() != v1::ROLE_UNSPECIFIED;
  if (!known) return InvalidFields({{"role", "must be ROLE_READER, ROLE_SUBMITTER or ROLE_ADMIN"}});
  std::optional<std::chrono::seconds> lifetime;
  if (request.has_lifetime()) {
    if (request.lifetime().seconds() > kLongestLifetime)
      return InvalidFields({{"lifetime", "must be under a century"}});
    lifetime = std::chrono::seconds(request.lifetime().seconds());
  }
  const auto created = tokens.Create({request.identity(), static_cast<Role>(request.role())}, lifetime);
  if (!created.ok()) return created.status();
  v1::CreateTokenResponse response;
  *response.mutable_token() = ToProto(created->record);
  response.set_secret(created->token);
  return response;
}

absl::StatusOr<v1::ListTokensResponse> List(const TokenStore& tokens) {
  const auto records = tokens.List();
  if (!records.ok()) return records.status();
  v1::ListTokensResponse response;
  for (const TokenRecord& record : *records) *response.add_tokens() = ToProto(record);
  return response;
}

absl::StatusOr<v1::Token> Revoke(TokenStore& tokens, const std::string& name) {
  if (!absl::StartsWith(name, std::string(kCollection))) return InvalidFields({{"name", "must be tokens/ID"}});
  const auto record = tokens.Revoke(name.substr(kCollection.size()));
  if (!record.ok()) return record.status();
  return ToProto(*record);
}

// Not even for those who may do everything: a token that is made while none is asked for would outlast that.
absl::Status NoTokens() {
  return WithReason(absl::FailedPreconditionError("this server asks for no tokens; start it with --require-tokens, or "
                                                  "use `temper-server token` on its own machine"),
                    "TOKENS_NOT_REQUIRED");
}

}  // namespace

grpc::ServerUnaryReactor* TokensApi::CreateToken(grpc::CallbackServerContext* context,
                                                 const v1::CreateTokenRequest* request,
                                                 v1::CreateTokenResponse* response) {
  return guard_.Pass(context, "/temper.v1.TokenService/CreateToken", "", [&](const Identity& caller) {
    absl::StatusOr<v1::CreateTokenResponse> created = NoTokens();
    if (tokens_ != nullptr) created = Create(*tokens_, *request);
    Audit(
        *context, &caller, "CreateToken",
        created.ok() ? absl::StrCat(created->token().name(), " of ", created->token().identity()) : request->identity(),
        created.status());
    return Answer(context, "CreateToken", observer_, std::move(created), response);
  });
}

grpc::ServerUnaryReactor* TokensApi::ListTokens(grpc::CallbackServerContext* context, const v1::ListTokensRequest*,
                                                v1::ListTokensResponse* response) {
  return guard_.Pass(context, "/temper.v1.TokenService/ListTokens", "", [&](const Identity&) {
    absl::StatusOr<v1::ListTokensResponse> list = NoTokens();
    if (tokens_ != nullptr) list = List(*tokens_);
    return Answer(context, "ListTokens", observer_, std::move(list), response);
  });
}

grpc::ServerUnaryReactor* TokensApi::RevokeToken(grpc::CallbackServerContext* context,
                                                 const v1::RevokeTokenRequest* request, v1::Token* response) {
  return guard_.Pass(context, "/temper.v1.TokenService/RevokeToken", "", [&](const Identity& caller) {
    absl::StatusOr<v1::Token> revoked = NoTokens();
    if (tokens_ != nullptr) revoked = Revoke(*tokens_, request->name());
    Audit(*context, &caller, "RevokeToken", request->name(), revoked.status());
    return Answer(context, "RevokeToken", observer_, std::move(revoked), response);
  });
}

}  // namespace temper
