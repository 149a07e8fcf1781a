// SPDX-License-Identifier: Apache-2.0
#include "server/sqlite/migration.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

absl::StatusOr<int64_t> Version(Sqlite& database) {
  SqliteStatement statement(database, "PRAGMA user_version");
  const auto row = statement.Step();
  if (!row.ok()) return row.status();
  return statement.Integer();
}

// True: there may be more to do.
absl::StatusOr<bool> TakeStep(Sqlite& database, std::span<const SchemaStep> steps) {
  SqliteTransaction transaction(database);
  if (absl::Status status = transaction.Begin(); !status.ok()) return status;
  const auto version = Version(database);
  if (!version.ok()) return version.status();
  const auto newest = static_cast<int64_t>(steps.size());
  if (*version > newest) {
    return absl::FailedPreconditionError(absl::StrCat(database.path(), ": the database has schema version ", *version,
                                                      ", this temper-server knows ", newest,
                                                      ": it was written by a newer version; use that one"));
  }
  if (*version == newest) return false;
  const SchemaStep& step = steps[static_cast<size_t>(*version)];
  absl::Status status = database.Execute(step.sql);
  if (status.ok() && step.fill != nullptr) status = step.fill(database);
  if (status.ok()) status = database.Execute(absl::StrCat("PRAGMA user_version = ", *version + 1));
  if (status.ok()) status = transaction.Commit();
  if (!status.ok()) return status;
  return true;
}

}  // namespace

absl::Status Migrate(Sqlite& database, std::span<const SchemaStep> steps) {
  absl::StatusOr<bool> more = true;
  while (more.ok() && *more) more = TakeStep(database, steps);
  return more.status();
}

}  // namespace temper
