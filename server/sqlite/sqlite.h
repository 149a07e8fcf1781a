// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"

struct sqlite3;
struct sqlite3_stmt;

namespace temper {

// A connection to a SQLite database. One thread at a time.
class Sqlite {
 public:
  enum class Mode { kReadWrite, kReadOnly };
  static absl::StatusOr<std::unique_ptr<Sqlite>> Open(const std::string& path, Mode mode);
  ~Sqlite();
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  const std::string& path() const { return path_; }

  // For the connection that writes: what is committed is on the disk, and readers wait for nobody.
  absl::Status UseWriteAheadLog();

  // Any number of statements without parameters.
  absl::Status Execute(const std::string& sql);

  // Called after every commit of this connection, on its thread, with the pages that the write-ahead log has then;
  // SQLite brings none of them into the database by itself any more. Null: as it was before.
  void OnCommit(std::function<void(int pages)> callback);

  // Brings what the write-ahead log has into the database, as far as no reader needs it to stay; waits for nobody.
  absl::Status Checkpoint();

  // What the last failed call means: DATA_LOSS for a file that is no (sound) database, ALREADY_EXISTS for a violated
  // constraint, UNAVAILABLE for anything else (disk full, I/O); the cause is STORAGE.
  absl::Status Error() const;

 private:
  friend class SqliteStatement;
  explicit Sqlite(sqlite3* database, std::string path) : database_(database), path_(std::move(path)) {}

  // A compiled statement that nobody uses; null when the text can't be compiled.
  sqlite3_stmt* Take(std::string_view sql);
  void GiveBack(std::string sql, sqlite3_stmt* statement);

  sqlite3* const database_;
  const std::string path_;
  std::function<void(int)> on_commit_;
  // Compiled statements that nobody uses, by text: to compile one takes longer than to look up a row.
  std::unordered_map<std::string, sqlite3_stmt*> idle_;
};

// One statement: bind its parameters in order, step through its rows, read their columns in order. Times are kept as
// microseconds since 1970. A failure to prepare or bind is told by the first Step. The connection keeps its compiled
// form for the next one of the same text.
class SqliteStatement {
 public:
  SqliteStatement(Sqlite& connection, std::string_view sql);
  ~SqliteStatement();
  SqliteStatement(const SqliteStatement&) = delete;
  SqliteStatement& operator=(const SqliteStatement&) = delete;

  SqliteStatement& Bind(int64_t value);
  SqliteStatement& Bind(std::string_view text);
  SqliteStatement& BindBlob(std::string_view bytes);
  SqliteStatement& Bind(WallTime time);
  SqliteStatement& BindNull();
  // NULL for none.
  template <typename T>
  SqliteStatement& Bind(const std::optional<T>& value) {
    return value ? Bind(*value) : BindNull();
  }

  // True: there is a row. False: there are no more.
  absl::StatusOr<bool> Step();
  // For statements without rows.
  absl::Status Run();

  int64_t Integer();
  std::string Text();  // and blobs; empty for NULL
  WallTime Time();
  std::optional<WallTime> OptionalTime();  // none for NULL
  bool IsNull() const;                     // of the next column

 private:
  Sqlite& connection_;
  const std::string sql_;
  sqlite3_stmt* const statement_;
  int next_parameter_ = 1;
  int next_column_ = 0;
  bool failed_;
};

// What `read`, called with the statement at each of its rows, makes of them. The first error, of either, ends it.
template <typename Read>
auto ReadRows(SqliteStatement& statement, const Read& read)
    -> absl::StatusOr<std::vector<typename std::invoke_result_t<Read, SqliteStatement&>::value_type>> {
  std::vector<typename std::invoke_result_t<Read, SqliteStatement&>::value_type> rows;
  while (true) {
    const auto row = statement.Step();
    if (!row.ok()) return row.status();
    if (!*row) return rows;
    auto value = read(statement);
    if (!value.ok()) return value.status();
    rows.push_back(*std::move(value));
  }
}

// BEGIN IMMEDIATE … COMMIT. Rolls back unless Commit() returned OK.
class SqliteTransaction {
 public:
  explicit SqliteTransaction(Sqlite& connection) : connection_(connection) {}
  ~SqliteTransaction();
  SqliteTransaction(const SqliteTransaction&) = delete;
  SqliteTransaction& operator=(const SqliteTransaction&) = delete;

  absl::Status Begin();
  absl::Status Commit();

 private:
  Sqlite& connection_;
  bool open_ = false;
};

}  // namespace temper
