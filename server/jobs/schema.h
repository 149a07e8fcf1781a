// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "server/sqlite/sqlite.h"

namespace temper {

// Brings the jobs' database to this build's schema. Errors are Migrate's (server/sqlite/migration.h).
absl::Status MigrateSchema(Sqlite& database);

}  // namespace temper
