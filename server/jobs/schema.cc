// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/schema.h"

#include <array>
#include <cstdint>

#include "server/sqlite/migration.h"
#include "temper/v1/training_service.pb.h"

namespace temper {
namespace {

// Copies the owners of jobs that are older than the column; SQL does not see into temper.v1.Job.
absl::Status FillOwners(Sqlite& database) {
  SqliteStatement select(database, "SELECT number, job FROM jobs");
  while (true) {
    const auto row = select.Step();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    const int64_t number = select.Integer();
    v1::Job job;
    if (!job.ParseFromString(select.Text())) continue;  // whoever reads it says that it is damaged
    SqliteStatement update(database, "UPDATE jobs SET owner = ? WHERE number = ?");
    if (absl::Status status = update.Bind(job.spec().owner()).Bind(number).Run(); !status.ok()) return status;
  }
}

constexpr std::array kSteps = {
    SchemaStep{R"sql(
      CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of creation
        id TEXT NOT NULL UNIQUE,
        state INTEGER NOT NULL,                    -- temper.v1.JobState, copied from job
        job BLOB NOT NULL,                         -- temper.v1.Job
        export_committed INTEGER NOT NULL,
        retry_at_us INTEGER,
        ending_cause INTEGER,                      -- temper.v1.FailureCause
        ending_message TEXT,
        request_id TEXT UNIQUE,
        request_digest TEXT,
        log_events INTEGER NOT NULL,
        dropped_log_events INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX jobs_by_state ON jobs (state, number);

      CREATE TABLE epochs (
        job_id TEXT NOT NULL REFERENCES jobs (id),
        epoch INTEGER NOT NULL,
        launch_us INTEGER NOT NULL,
        run_dir TEXT NOT NULL,
        token_hash TEXT NOT NULL,
        launcher_handle TEXT NOT NULL,
        incarnation TEXT NOT NULL,
        PRIMARY KEY (job_id, epoch)
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE events (
        job_id TEXT NOT NULL REFERENCES jobs (id),
        sequence INTEGER NOT NULL,
        event BLOB NOT NULL,                       -- temper.v1.JobEvent
        PRIMARY KEY (job_id, sequence)
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE report_positions (
        job_id TEXT NOT NULL REFERENCES jobs (id),
        epoch INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        sequence INTEGER NOT NULL,                 -- of the newest report that is kept
        PRIMARY KEY (job_id, epoch, rank)
      ) STRICT, WITHOUT ROWID;
    )sql"},
    SchemaStep{R"sql(
      ALTER TABLE jobs ADD COLUMN restarts_since_checkpoint INTEGER NOT NULL DEFAULT 0;
      ALTER TABLE epochs ADD COLUMN resume_from TEXT NOT NULL DEFAULT '';  -- URIs, a line each

      CREATE TABLE checkpoints (
        job_id TEXT NOT NULL REFERENCES jobs (id),
        step INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        checkpoint BLOB NOT NULL,                  -- temper.v1.Checkpoint
        PRIMARY KEY (job_id, step, epoch)
      ) STRICT, WITHOUT ROWID;
    )sql"},
    SchemaStep{R"sql(
      CREATE TABLE steps (
        job_id TEXT NOT NULL REFERENCES jobs (id),
        step INTEGER NOT NULL,
        metrics BLOB NOT NULL,                     -- temper.v1.StepMetrics, of the last time that it was taken
        PRIMARY KEY (job_id, step)
      ) STRICT, WITHOUT ROWID;
    )sql"},
    SchemaStep{R"sql(
      ALTER TABLE jobs ADD COLUMN preflight INTEGER NOT NULL DEFAULT 0;       -- the next or present gang only looks
      ALTER TABLE jobs ADD COLUMN preflight_only INTEGER NOT NULL DEFAULT 0;
    )sql"},
    SchemaStep{R"sql(
      ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';             -- copied from job
      CREATE INDEX jobs_by_owner ON jobs (owner, number);
    )sql",
               FillOwners},
};

}  // namespace

absl::Status MigrateSchema(Sqlite& database) { return Migrate(database, kSteps); }

}  // namespace temper
