// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "server/sqlite/sqlite.h"

namespace temper {

// Brings a database from whatever version it has (PRAGMA user_version; 0: empty) to this build's.
//
// FAILED_PRECONDITION: it was written by a newer temper.
absl::Status MigrateSchema(Sqlite& database);

}  // namespace temper
