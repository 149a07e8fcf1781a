// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "absl/status/status.h"
#include "server/sqlite/sqlite.h"

namespace temper {

// Takes a database from version N of its schema to N + 1. A step that was released is never changed.
struct SchemaStep {
  const char* sql = nullptr;
  // What SQL can't do, after it and in the same transaction; null: nothing.
  absl::Status (*fill)(Sqlite& database) = nullptr;
};

// Brings a database from whatever version it has (PRAGMA user_version; 0: empty) to the one after the last step, each
// step in a transaction of its own. Several processes may do so at a time.
//
// FAILED_PRECONDITION: it was written by a newer temper.
absl::Status Migrate(Sqlite& database, std::span<const SchemaStep> steps);

}  // namespace temper
