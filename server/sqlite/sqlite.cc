// SPDX-License-Identifier: Apache-2.0
#include "server/sqlite/sqlite.h"

#include <sqlite3.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failure.h"

namespace temper {
namespace {

// Texts differ by the states that are listed, at most.
constexpr size_t kMaxIdleStatements = 100;
constexpr int kAutomaticCheckpointPages = 1000;  // SQLite's own

}  // namespace

absl::StatusOr<std::unique_ptr<Sqlite>> Sqlite::Open(const std::string& path, Mode mode) {
  const int access = mode == Mode::kReadOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  sqlite3* database = nullptr;
  const int result = sqlite3_open_v2(path.c_str(), &database, access | SQLITE_OPEN_NOMUTEX, nullptr);
  // Even a failed open gives a connection, which holds the error.
  std::unique_ptr<Sqlite> connection(new Sqlite(database, path));
  if (result != SQLITE_OK) return connection->Error();
  sqlite3_extended_result_codes(database, 1);
  sqlite3_busy_timeout(database, 5000);
  return connection;
}

Sqlite::~Sqlite() {
  for (const auto& [sql, statement] : idle_) sqlite3_finalize(statement);
  sqlite3_close(database_);
}

sqlite3_stmt* Sqlite::Take(std::string_view sql) {
  if (auto idle = idle_.extract(std::string(sql)); !idle.empty()) return idle.mapped();
  sqlite3_stmt* statement = nullptr;
  sqlite3_prepare_v3(database_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement,
                     nullptr);
  return statement;
}

void Sqlite::GiveBack(std::string sql, sqlite3_stmt* statement) {
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  if (idle_.size() < kMaxIdleStatements && idle_.emplace(std::move(sql), statement).second) return;
  sqlite3_finalize(statement);
}

absl::Status Sqlite::Execute(const std::string& sql) {
  if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return Error();
  return absl::OkStatus();
}

absl::Status Sqlite::UseWriteAheadLog() {
  return Execute(
      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF");
}

void Sqlite::OnCommit(std::function<void(int)> callback) {
  on_commit_ = std::move(callback);
  if (!on_commit_) {
    sqlite3_wal_autocheckpoint(database_, kAutomaticCheckpointPages);
    return;
  }
  sqlite3_wal_hook(
      database_,
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<Sqlite*>(self)->on_commit_(pages);
        return SQLITE_OK;
      },
      this);
}

// The C function does nothing on a connection that has read nothing yet.
absl::Status Sqlite::Checkpoint() { return Execute("PRAGMA wal_checkpoint(PASSIVE)"); }

absl::Status Sqlite::Error() const {
  const std::string message = absl::StrCat(path_, ": ", sqlite3_errmsg(database_));
  absl::Status status;
  switch (sqlite3_errcode(database_) & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      status = absl::DataLossError(message);
      break;
    case SQLITE_CONSTRAINT:
      status = absl::AlreadyExistsError(message);
      break;
    default:
      status = absl::UnavailableError(message);
  }
  return WithCause(status, FailureCause::kStorage);
}

SqliteStatement::SqliteStatement(Sqlite& connection, std::string_view sql)
    : connection_(connection), sql_(sql), statement_(connection.Take(sql)), failed_(statement_ == nullptr) {}

SqliteStatement::~SqliteStatement() {
  if (statement_ != nullptr) connection_.GiveBack(sql_, statement_);
}

SqliteStatement& SqliteStatement::Bind(int64_t value) {
  if (!failed_) failed_ = sqlite3_bind_int64(statement_, next_parameter_++, value) != SQLITE_OK;
  return *this;
}

SqliteStatement& SqliteStatement::Bind(std::string_view text) {
  // A null pointer would bind NULL.
  const char* data = text.data() == nullptr ? "" : text.data();
  if (!failed_) {
    failed_ = sqlite3_bind_text64(statement_, next_parameter_++, data, text.size(), SQLITE_TRANSIENT, SQLITE_UTF8) !=
              SQLITE_OK;
  }
  return *this;
}

SqliteStatement& SqliteStatement::BindBlob(std::string_view bytes) {
  const char* data = bytes.data() == nullptr ? "" : bytes.data();
  if (!failed_) {
    failed_ = sqlite3_bind_blob64(statement_, next_parameter_++, data, bytes.size(), SQLITE_TRANSIENT) != SQLITE_OK;
  }
  return *this;
}

SqliteStatement& SqliteStatement::Bind(WallTime time) {
  return Bind(int64_t{std::chrono::floor<std::chrono::microseconds>(time.time_since_epoch()).count()});
}

SqliteStatement& SqliteStatement::BindNull() {
  if (!failed_) failed_ = sqlite3_bind_null(statement_, next_parameter_++) != SQLITE_OK;
  return *this;
}

absl::StatusOr<bool> SqliteStatement::Step() {
  if (failed_) return connection_.Error();
  next_column_ = 0;
  switch (sqlite3_step(statement_)) {
    case SQLITE_ROW:
      return true;
    case SQLITE_DONE:
      return false;
    default:
      return connection_.Error();
  }
}

absl::Status SqliteStatement::Run() { return Step().status(); }

int64_t SqliteStatement::Integer() { return sqlite3_column_int64(statement_, next_column_++); }

std::string SqliteStatement::Text() {
  const int column = next_column_++;
  const void* bytes = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), static_cast<size_t>(size));
}

WallTime SqliteStatement::Time() { return WallTime(std::chrono::microseconds(Integer())); }

std::optional<WallTime> SqliteStatement::OptionalTime() {
  const bool none = IsNull();
  const WallTime time = Time();
  return none ? std::nullopt : std::optional(time);
}

bool SqliteStatement::IsNull() const { return sqlite3_column_type(statement_, next_column_) == SQLITE_NULL; }

SqliteTransaction::~SqliteTransaction() {
  if (open_) (void)connection_.Execute("ROLLBACK");
}

absl::Status SqliteTransaction::Begin() {
  absl::Status status = connection_.Execute("BEGIN IMMEDIATE");
  open_ = status.ok();
  return status;
}

absl::Status SqliteTransaction::Commit() {
  absl::Status status = connection_.Execute("COMMIT");
  // A COMMIT that failed leaves the transaction open.
  if (status.ok()) open_ = false;
  return status;
}

}  // namespace temper
