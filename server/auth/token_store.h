// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "server/auth/role.h"

namespace temper {

class Sqlite;

// What is known of a token. Not the token itself: nobody can tell it a second time.
struct TokenRecord {
  std::string id;  // 16 hex digits; not secret
  Identity identity;
  WallTime create_time;
  std::optional<WallTime> expire_time;
  std::optional<WallTime> revoke_time;
};

struct CreatedToken {
  TokenRecord record;
  // temper_ID_SECRET, with a secret of 256 random bits (common/secret.h).
  std::string token;
};

// The bearer tokens of people and programs, in DATA_DIR/tokens.db (SQLite, mode 0600). Of each it has the SHA-256 of
// the secret. Apart from the jobs, so that several processes can use it at once: a running server, and `temper-server
// token` beside it, whose changes hold from the next call on. Any thread.
//
// Every method may also fail with UNAVAILABLE or DATA_LOSS when the file does.
class TokenStore {
 public:
  // Creates directory and file when missing. Times are by `clock`, which must outlive it.
  //
  // FAILED_PRECONDITION: the file was written by a newer temper.
  static absl::StatusOr<std::unique_ptr<TokenStore>> Open(const std::filesystem::path& data_dir, const Clock& clock);
  ~TokenStore();
  TokenStore(const TokenStore&) = delete;
  TokenStore& operator=(const TokenStore&) = delete;

  // One identity may have several tokens, of different roles even: that is how a token is replaced.
  //
  // INVALID_ARGUMENT: the name does not have 1 to 100 of A-Z, a-z, 0-9 and . _ @ - alone (violation `identity`), or
  // `lifetime` is not positive (`lifetime`).
  absl::StatusOr<CreatedToken> Create(const Identity& identity, std::optional<std::chrono::seconds> lifetime);

  // All of them, oldest first.
  absl::StatusOr<std::vector<TokenRecord>> List() const;

  // The token is good for nothing from the next call on. One that was revoked before stays as it is.
  //
  // NOT_FOUND: there is no such token.
  absl::StatusOr<TokenRecord> Revoke(const std::string& id);

  // Whose token this is. UNAUTHENTICATED with the reason TOKEN_WRONG, or for one that is right, TOKEN_REVOKED or
  // TOKEN_EXPIRED. Secrets are compared in constant time.
  absl::StatusOr<Identity> Authenticate(std::string_view token) const;

 private:
  TokenStore(std::unique_ptr<Sqlite> database, const Clock& clock);

  const Clock& clock_;
  mutable std::mutex mutex_;
  const std::unique_ptr<Sqlite> database_;  // guarded by mutex_
};

}  // namespace temper
