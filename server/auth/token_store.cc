// SPDX-License-Identifier: Apache-2.0
#include "server/auth/token_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/private_directory.h"
#include "common/rpc/status.h"
#include "common/secret.h"
#include "server/sqlite/migration.h"
#include "server/sqlite/sqlite.h"

namespace temper {
namespace {

constexpr std::string_view kTokenPrefix = "temper_";
constexpr size_t kIdBytes = 8;
constexpr size_t kMaxName = 100;  // as the owner of a job
constexpr std::array kSchema = {SchemaStep{R"sql(
  CREATE TABLE tokens (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of creation
    id TEXT NOT NULL UNIQUE,
    secret_hash TEXT NOT NULL,                 -- SHA-256 in hex
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    create_us INTEGER NOT NULL,
    expire_us INTEGER,
    revoke_us INTEGER
  ) STRICT;
)sql"}};
constexpr std::string_view kColumns = "id, name, role, create_us, expire_us, revoke_us";

// The role is none of ours: no token is given more than what its row says.
absl::Status Damaged(const std::string& id) {
  return absl::DataLossError(absl::StrCat("the record of token ", id, " is damaged"));
}

// Reads kColumns.
absl::StatusOr<TokenRecord> ReadRecord(SqliteStatement& row) {
  TokenRecord record;
  record.id = row.Text();
  record.identity.name = row.Text();
  const std::optional<Role> role = ParseRole(row.Text());
  if (!role) return Damaged(record.id);
  record.identity.role = *role;
  record.create_time = row.Time();
  record.expire_time = row.OptionalTime();
  record.revoke_time = row.OptionalTime();
  return record;
}

bool IsName(std::string_view name) {
  constexpr std::string_view kOthers = "._@-";
  return !name.empty() && name.size() <= kMaxName && std::all_of(name.begin(), name.end(), [&](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || kOthers.find(c) != std::string_view::npos;
  });
}

absl::Status CreateFile(const std::filesystem::path& path) {
  MakePrivateDirectory(path.parent_path());  // what fails, fails below
  // The files that SQLite adds beside it get its mode.
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return absl::UnavailableError(absl::StrCat(path.string(), ": can't be used: ", std::strerror(errno)));
  ::close(file);
  return absl::OkStatus();
}

absl::Status Refused(const std::string& message, std::string_view reason) {
  return WithReason(absl::UnauthenticatedError(message), reason);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenStore>> TokenStore::Open(const std::filesystem::path& data_dir,
                                                             const Clock& clock) {
  const std::filesystem::path path = data_dir / "tokens.db";
  if (absl::Status status = CreateFile(path); !status.ok()) return status;
  auto database = Sqlite::Open(path.string(), Sqlite::Mode::kReadWrite);
  if (!database.ok()) return database.status();
  if (absl::Status status = (*database)->UseWriteAheadLog(); !status.ok()) return status;
  if (absl::Status status = Migrate(**database, kSchema); !status.ok()) return status;
  return std::unique_ptr<TokenStore>(new TokenStore(*std::move(database), clock));
}

TokenStore::TokenStore(std::unique_ptr<Sqlite> database, const Clock& clock)
    : clock_(clock), database_(std::move(database)) {}

TokenStore::~TokenStore() = default;

absl::StatusOr<CreatedToken> TokenStore::Create(const Identity& identity,
                                                std::optional<std::chrono::seconds> lifetime) {
  if (!IsName(identity.name)) {
    return InvalidFields({{"identity", absl::StrCat("must have 1 to ", kMaxName, " of letters, digits and . _ @ -")}});
  }
  if (lifetime && lifetime->count() <= 0) return InvalidFields({{"lifetime", "must be over 0"}});
  CreatedToken created;
  TokenRecord& record = created.record;
  record.id = RandomHex(kIdBytes);
  record.identity = identity;
  record.create_time = clock_.Wall();
  if (lifetime) record.expire_time = record.create_time + *lifetime;
  const std::string secret = NewSecret();
  created.token = absl::StrCat(std::string(kTokenPrefix), record.id, "_", secret);

  std::lock_guard lock(mutex_);
  SqliteStatement insert(*database_, absl::StrCat("INSERT INTO tokens (", std::string(kColumns),
                                                  ", secret_hash) VALUES (?, ?, ?, ?, ?, NULL, ?)"));
  insert.Bind(record.id).Bind(identity.name).Bind(RoleName(identity.role)).Bind(record.create_time);
  insert.Bind(record.expire_time).Bind(Sha256Hex(secret));
  if (absl::Status status = insert.Run(); !status.ok()) return status;
  return created;
}

absl::StatusOr<std::vector<TokenRecord>> TokenStore::List() const {
  std::lock_guard lock(mutex_);
  SqliteStatement select(*database_, absl::StrCat("SELECT ", std::string(kColumns), " FROM tokens ORDER BY number"));
  return ReadRows(select, ReadRecord);
}

absl::StatusOr<TokenRecord> TokenStore::Revoke(const std::string& id) {
  std::lock_guard lock(mutex_);
  SqliteStatement update(*database_, absl::StrCat("UPDATE tokens SET revoke_us = coalesce(revoke_us, ?) WHERE id = ? "
                                                  "RETURNING ",
                                                  std::string(kColumns)));
  const auto row = update.Bind(clock_.Wall()).Bind(id).Step();
  if (!row.ok()) return row.status();
  if (!*row) return WithReason(absl::NotFoundError(absl::StrCat("there is no token ", id)), "TOKEN_NOT_FOUND");
  auto record = ReadRecord(update);
  if (const auto rest = update.Step(); !rest.ok()) return rest.status();
  return record;
}

absl::StatusOr<Identity> TokenStore::Authenticate(std::string_view token) const {
  const absl::Status wrong = Refused("this server does not know the token", "TOKEN_WRONG");
  if (!token.starts_with(kTokenPrefix)) return wrong;
  const std::string_view rest = token.substr(kTokenPrefix.size());
  const size_t separator = rest.find('_');
  if (separator == std::string_view::npos) return wrong;
  const std::string_view id = rest.substr(0, separator), secret = rest.substr(separator + 1);

  std::lock_guard lock(mutex_);
  SqliteStatement select(*database_,
                         absl::StrCat("SELECT secret_hash, ", std::string(kColumns), " FROM tokens WHERE id = ?"));
  const auto row = select.Bind(id).Step();
  if (!row.ok()) return row.status();
  if (!*row || !EqualSecrets(Sha256Hex(secret), select.Text())) return wrong;
  const auto record = ReadRecord(select);
  if (!record.ok()) return record.status();
  if (record->revoke_time) return Refused(absl::StrCat("token ", record->id, " was revoked"), "TOKEN_REVOKED");
  if (record->expire_time && *record->expire_time <= clock_.Wall()) {
    return Refused(absl::StrCat("token ", record->id, " has expired"), "TOKEN_EXPIRED");
  }
  return record->identity;
}

}  // namespace temper
