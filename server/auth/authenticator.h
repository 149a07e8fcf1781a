// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/auth/role.h"
#include "server/auth/token_store.h"

namespace temper {

// Who calls, and whether they may (server/auth/route_rules.h), for gRPC and HTTP alike. Any thread.
class Authenticator {
 public:
  // Null: the server asks for no tokens, and everybody is an admin without a name. Otherwise it must outlive this.
  explicit Authenticator(TokenStore* tokens) : tokens_(tokens) {}

  // Null as above.
  TokenStore* tokens() const { return tokens_; }

  // Who calls `route` with this value of the header `authorization` (empty: it is not there). Looks at no job. `known`
  // becomes the holder of the token, let in or not, and stays as it is where there is none.
  //
  // UNAUTHENTICATED (TOKEN_MISSING, or as TokenStore::Authenticate has it), PERMISSION_DENIED (ROLE_TOO_LOW, or nobody
  // may). UNAVAILABLE: the store fails; why is in the log alone.
  absl::StatusOr<Identity> Admit(std::string_view route, std::string_view authorization,
                                 Identity* known = nullptr) const;

  // Whether somebody who was admitted may do this to a job of `owner`. PERMISSION_DENIED (NOT_THE_OWNER).
  static absl::Status CheckOwner(std::string_view route, const Identity& caller, std::string_view owner);

 private:
  TokenStore* const tokens_;
};

}  // namespace temper
