// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/digest.h"
#include "common/failure.h"
#include "server/jobs/schema.h"

namespace temper {
namespace {

constexpr std::string_view kRecordColumns =
    "id, job, export_committed, retry_at_us, ending_cause, ending_message, request_id, request_digest, log_events, "
    "dropped_log_events, restarts_since_checkpoint, preflight, preflight_only";

// Rows that List() reads in one statement.
constexpr int kListedAtOnce = 200;

absl::Status Damaged(const std::string& what) {
  return WithCause(absl::DataLossError(absl::StrCat("the database is damaged: ", what, " can't be read")),
                   FailureCause::kStorage);
}

// Reads kRecordColumns.
absl::StatusOr<JobRecord> ReadRecord(SqliteStatement& row) {
  JobRecord record;
  record.id = row.Text();
  if (!record.job.ParseFromString(row.Text())) return Damaged("job " + record.id);
  JobLife& life = record.life;
  life.state = record.job.state();
  life.target = record.job.target();
  life.epoch = record.job.epoch();
  life.restarts = record.job.restarts();
  life.reason = record.job.reason();
  life.cause = record.job.cause();
  life.export_committed = row.Integer() != 0;
  life.retry_at = row.OptionalTime();
  const bool has_ending = !row.IsNull();
  const auto ending_cause = static_cast<v1::FailureCause>(row.Integer());
  std::string ending_message = row.Text();
  if (has_ending) life.ending = GangEnding{ending_cause, std::move(ending_message)};
  record.request_id = row.Text();
  record.request_digest = row.Text();
  record.log_events = row.Integer();
  record.dropped_log_events = row.Integer();
  life.restarts_since_checkpoint = static_cast<int32_t>(row.Integer());
  life.preflight = row.Integer() != 0;
  life.preflight_only = row.Integer() != 0;
  return record;
}

// Binds kRecordColumns.
void BindRecord(SqliteStatement& statement, const JobRecord& record) {
  const JobLife& life = record.life;
  statement.Bind(record.id).BindBlob(record.job.SerializeAsString()).Bind(life.export_committed ? 1 : 0);
  statement.Bind(life.retry_at);
  if (life.ending) {
    statement.Bind(static_cast<int64_t>(life.ending->cause)).Bind(life.ending->message);
  } else {
    statement.BindNull().BindNull();
  }
  if (record.request_id.empty()) {
    statement.BindNull().BindNull();
  } else {
    statement.Bind(record.request_id).Bind(record.request_digest);
  }
  statement.Bind(record.log_events).Bind(record.dropped_log_events).Bind(life.restarts_since_checkpoint);
  statement.Bind(life.preflight ? 1 : 0).Bind(life.preflight_only ? 1 : 0);
}

absl::Status WriteJob(Sqlite& database, const JobRecord& record, bool create) {
  if (create) {
    SqliteStatement insert(database,
                           absl::StrCat("INSERT INTO jobs (", std::string(kRecordColumns),
                                        ", state, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    BindRecord(insert, record);
    return insert.Bind(static_cast<int64_t>(record.life.state)).Bind(record.job.spec().owner()).Run();
  }
  SqliteStatement update(database, absl::StrCat("UPDATE jobs SET (", std::string(kRecordColumns),
                                                ", state) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ? "
                                                "RETURNING 1"));
  BindRecord(update, record);
  const auto updated = update.Bind(static_cast<int64_t>(record.life.state)).Bind(record.id).Step();
  if (!updated.ok()) return updated.status();
  return *updated ? absl::OkStatus() : absl::NotFoundError(absl::StrCat("there is no jobs/", record.id));
}

absl::Status WriteEpoch(Sqlite& database, const EpochRecord& epoch) {
  SqliteStatement upsert(database,
                         "INSERT OR REPLACE INTO epochs (job_id, epoch, launch_us, run_dir, token_hash, "
                         "launcher_handle, incarnation, resume_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  return upsert.Bind(epoch.job_id)
      .Bind(epoch.epoch)
      .Bind(epoch.launch_time)
      .Bind(epoch.run_dir)
      .Bind(epoch.token_hash)
      .Bind(epoch.launcher_handle)
      .Bind(absl::StrJoin(epoch.incarnations, "\n"))
      .Bind(absl::StrJoin(epoch.resume_from, "\n"))
      .Run();
}

absl::Status WriteCheckpoint(Sqlite& database, const std::string& id, const v1::Checkpoint& checkpoint) {
  SqliteStatement upsert(database,
                         "INSERT OR REPLACE INTO checkpoints (job_id, step, epoch, checkpoint) VALUES (?, ?, ?, ?)");
  return upsert.Bind(id)
      .Bind(checkpoint.step())
      .Bind(checkpoint.epoch())
      .BindBlob(checkpoint.SerializeAsString())
      .Run();
}

absl::Status RemoveCheckpoint(Sqlite& database, const std::string& id, const CheckpointKey& key) {
  SqliteStatement remove(database, "DELETE FROM checkpoints WHERE job_id = ? AND step = ? AND epoch = ?");
  return remove.Bind(id).Bind(key.step).Bind(key.epoch).Run();
}

absl::Status WriteEvent(Sqlite& database, const std::string& id, const v1::JobEvent& event) {
  SqliteStatement insert(database, "INSERT INTO events (job_id, sequence, event) VALUES (?, ?, ?)");
  absl::Status status = insert.Bind(id).Bind(event.sequence()).BindBlob(event.SerializeAsString()).Run();
  if (!status.ok() || !event.has_step()) return status;
  SqliteStatement upsert(database, "INSERT OR REPLACE INTO steps (job_id, step, metrics) VALUES (?, ?, ?)");
  return upsert.Bind(id).Bind(event.step().step()).BindBlob(event.step().SerializeAsString()).Run();
}

absl::Status WritePosition(Sqlite& database, const std::string& id, const ReportPosition& position) {
  SqliteStatement upsert(database,
                         "INSERT OR REPLACE INTO report_positions (job_id, epoch, rank, sequence) VALUES (?, ?, ?, ?)");
  return upsert.Bind(id).Bind(position.epoch).Bind(position.rank).Bind(position.sequence).Run();
}

absl::Status WriteUpdate(Sqlite& database, const JobUpdate& update, bool create) {
  const std::string& id = update.record.id;
  absl::Status status = WriteJob(database, update.record, create);
  if (status.ok() && update.epoch) status = WriteEpoch(database, *update.epoch);
  for (const v1::JobEvent& event : update.events) {
    if (status.ok()) status = WriteEvent(database, id, event);
  }
  for (const ReportPosition& position : update.positions) {
    if (status.ok()) status = WritePosition(database, id, position);
  }
  for (const v1::Checkpoint& checkpoint : update.checkpoints) {
    if (status.ok()) status = WriteCheckpoint(database, id, checkpoint);
  }
  for (const CheckpointKey& key : update.removed_checkpoints) {
    if (status.ok()) status = RemoveCheckpoint(database, id, key);
  }
  return status;
}

std::string StateList(std::vector<v1::JobState> states) {
  std::sort(states.begin(), states.end());
  states.erase(std::unique(states.begin(), states.end()), states.end());
  return absl::StrJoin(states, ",",
                       [](std::string* out, v1::JobState state) { absl::StrAppend(out, static_cast<int>(state)); });
}

std::string Fingerprint(const JobFilter& filter) {
  std::string text = absl::StrCat(StateList(filter.states), "\n", filter.owner);
  for (const auto& [key, value] : filter.labels) absl::StrAppend(&text, "\n", key, "=", value);
  return Sha256Hex(text).substr(0, 16);
}

bool HasLabels(const v1::JobSpec& spec, const JobFilter& filter) {
  return std::all_of(filter.labels.begin(), filter.labels.end(), [&spec](const auto& wanted) {
    const auto label = spec.labels().find(wanted.first);
    return label != spec.labels().end() && label->second == wanted.second;
  });
}

// A page token names the job that its page begins after, and the filter that it belongs to.
std::string EncodePageToken(int64_t number, const std::string& filter) {
  return absl::WebSafeBase64Escape(absl::StrCat("1:", number, ":", filter));
}

absl::StatusOr<int64_t> DecodePageToken(const std::string& token, const std::string& filter) {
  std::string text;
  int64_t number = 0;
  if (absl::WebSafeBase64Unescape(token, &text)) {
    const std::vector<std::string> parts = absl::StrSplit(text, ':');
    if (parts.size() == 3 && parts[0] == "1" && absl::SimpleAtoi(parts[1], &number) && parts[2] == filter) {
      return number;
    }
  }
  return absl::InvalidArgumentError("page_token is not from an answer with the same filter: begin without one");
}

}  // namespace

bool EpochRecord::AnyHeard() const {
  return std::any_of(incarnations.begin(), incarnations.end(), [](const std::string& one) { return !one.empty(); });
}

bool EpochRecord::AllHeard() const {
  return std::none_of(incarnations.begin(), incarnations.end(), [](const std::string& one) { return one.empty(); });
}

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::filesystem::path& data_dir) {
  auto directory = DataDirectory::Hold(data_dir);
  if (!directory.ok()) return directory.status();
  const std::string path = (data_dir / "temper.db").string();
  auto writer = Sqlite::Open(path, Sqlite::Mode::kReadWrite);
  if (!writer.ok()) return writer.status();
  absl::Status status = (*writer)->UseWriteAheadLog();
  if (status.ok()) status = MigrateSchema(**writer);
  if (!status.ok()) return status;
  auto reader = Sqlite::Open(path, Sqlite::Mode::kReadOnly);
  if (!reader.ok()) return reader.status();
  auto lister = Sqlite::Open(path, Sqlite::Mode::kReadOnly);
  if (!lister.ok()) return lister.status();
  auto checkpoints = Sqlite::Open(path, Sqlite::Mode::kReadWrite);
  if (!checkpoints.ok()) return checkpoints.status();
  return std::unique_ptr<JobStore>(new JobStore(*std::move(directory), *std::move(writer), *std::move(reader),
                                                *std::move(lister), *std::move(checkpoints)));
}

JobStore::JobStore(std::unique_ptr<DataDirectory> directory, std::unique_ptr<Sqlite> writer,
                   std::unique_ptr<Sqlite> reader, std::unique_ptr<Sqlite> lister, std::unique_ptr<Sqlite> checkpoints)
    : directory_(std::move(directory)),
      writer_(std::move(writer)),
      reader_(std::move(reader)),
      lister_(std::move(lister)),
      checkpointer_(*writer_, write_mutex_, std::move(checkpoints)) {}

JobStore::~JobStore() = default;

absl::Status JobStore::Create(const JobUpdate& update) {
  std::lock_guard lock(write_mutex_);
  SqliteTransaction transaction(*writer_);
  absl::Status status = transaction.Begin();
  if (status.ok()) status = WriteUpdate(*writer_, update, /*create=*/true);
  return status.ok() ? transaction.Commit() : status;
}

absl::Status JobStore::Update(const JobUpdate& update) {
  const JobUpdate* const updates[] = {&update};
  return Update(updates);
}

absl::Status JobStore::Update(std::span<const JobUpdate* const> updates) {
  std::lock_guard lock(write_mutex_);
  SqliteTransaction transaction(*writer_);
  absl::Status status = transaction.Begin();
  for (const JobUpdate* update : updates) {
    if (status.ok()) status = WriteUpdate(*writer_, *update, /*create=*/false);
  }
  return status.ok() ? transaction.Commit() : status;
}

absl::StatusOr<JobRecord> JobStore::Get(const std::string& id) const {
  std::lock_guard lock(read_mutex_);
  SqliteStatement select(*reader_, absl::StrCat("SELECT ", std::string(kRecordColumns), " FROM jobs WHERE id = ?"));
  const auto row = select.Bind(id).Step();
  if (!row.ok()) return row.status();
  if (!*row) return absl::NotFoundError(absl::StrCat("there is no jobs/", id));
  return ReadRecord(select);
}

absl::StatusOr<JobRecord> JobStore::FindByRequestId(const std::string& request_id) const {
  std::lock_guard lock(read_mutex_);
  SqliteStatement select(*reader_,
                         absl::StrCat("SELECT ", std::string(kRecordColumns), " FROM jobs WHERE request_id = ?"));
  const auto row = select.Bind(request_id).Step();
  if (!row.ok()) return row.status();
  if (!*row) return absl::NotFoundError("no job was created under this request_id");
  return ReadRecord(select);
}

absl::StatusOr<EpochRecord> JobStore::GetEpoch(const std::string& id, int32_t epoch) const {
  std::lock_guard lock(read_mutex_);
  SqliteStatement select(*reader_,
                         "SELECT launch_us, run_dir, token_hash, launcher_handle, incarnation, resume_from FROM epochs "
                         "WHERE job_id = ? AND epoch = ?");
  const auto row = select.Bind(id).Bind(epoch).Step();
  if (!row.ok()) return row.status();
  if (!*row) return absl::NotFoundError(absl::StrCat("jobs/", id, " has no epoch ", epoch));
  EpochRecord record;
  record.job_id = id;
  record.epoch = epoch;
  record.launch_time = select.Time();
  record.run_dir = select.Text();
  record.token_hash = select.Text();
  record.launcher_handle = select.Text();
  record.incarnations = absl::StrSplit(select.Text(), '\n');
  record.resume_from = absl::StrSplit(select.Text(), '\n', absl::SkipEmpty());
  return record;
}

absl::StatusOr<std::vector<JobRecord>> JobStore::Unfinished() const {
  std::lock_guard lock(read_mutex_);
  SqliteStatement select(*reader_, absl::StrCat("SELECT ", std::string(kRecordColumns),
                                                " FROM jobs WHERE state NOT IN (?, ?, ?) ORDER BY number"));
  select.Bind(static_cast<int64_t>(v1::JOB_STATE_SUCCEEDED))
      .Bind(static_cast<int64_t>(v1::JOB_STATE_FAILED))
      .Bind(static_cast<int64_t>(v1::JOB_STATE_CANCELLED));
  return ReadRows(select, ReadRecord);
}

absl::StatusOr<std::map<v1::JobState, int64_t>> JobStore::CountByState() const {
  std::lock_guard lock(read_mutex_);
  SqliteStatement select(*reader_, "SELECT state, count(*) FROM jobs GROUP BY state");
  std::map<v1::JobState, int64_t> counts;
  while (true) {
    const auto row = select.Step();
    if (!row.ok()) return row.status();
    if (!*row) return counts;
    const auto state = static_cast<v1::JobState>(select.Integer());
    counts[state] = select.Integer();
  }
}

absl::StatusOr<JobPage> JobStore::List(const JobFilter& filter, int page_size, const std::string& page_token) const {
  const std::string state_list = StateList(filter.states), fingerprint = Fingerprint(filter);
  int64_t before = INT64_MAX;
  if (!page_token.empty()) {
    const auto number = DecodePageToken(page_token, fingerprint);
    if (!number.ok()) return number.status();
    before = *number;
  }
  // The list holds digits and commas only.
  const std::string in_states = state_list.empty() ? "" : absl::StrCat(" AND state IN (", state_list, ")");
  const std::string of_owner = filter.owner.empty() ? "" : " AND owner = ?";
  const std::string query = absl::StrCat("SELECT number, job FROM jobs WHERE number < ?", of_owner, in_states,
                                         " ORDER BY number DESC LIMIT ", kListedAtOnce);
  JobPage page;
  while (true) {
    // A filter that few jobs match reads them all. In parts: a statement that is open holds up the checkpoints of the
    // WAL.
    std::lock_guard lock(list_mutex_);
    SqliteStatement select(*lister_, query);
    select.Bind(before);
    if (!filter.owner.empty()) select.Bind(filter.owner);
    int rows = 0;
    for (; rows < kListedAtOnce; ++rows) {
      const auto row = select.Step();
      if (!row.ok()) return row.status();
      if (!*row) return page;
      const int64_t number = select.Integer();
      v1::Job job;
      if (!job.ParseFromString(select.Text())) return Damaged(absl::StrCat("job number ", number));
      if (HasLabels(job.spec(), filter)) {
        if (static_cast<int>(page.jobs.size()) == page_size) {
          page.next_page_token = EncodePageToken(before, fingerprint);
          return page;
        }
        page.jobs.push_back(std::move(job));
      }
      before = number;
    }
  }
}

absl::StatusOr<std::vector<v1::JobEvent>> JobStore::Events(const std::string& id, int64_t after_sequence,
                                                           int limit) const {
  std::lock_guard lock(read_mutex_);
  SqliteStatement select(*reader_,
                         "SELECT event FROM events WHERE job_id = ? AND sequence > ? ORDER BY sequence LIMIT ?");
  select.Bind(id).Bind(after_sequence).Bind(limit);
  return ReadRows(select, [&id](SqliteStatement& row) -> absl::StatusOr<v1::JobEvent> {
    v1::JobEvent event;
    if (!event.ParseFromString(row.Text())) return Damaged(absl::StrCat("an event of job ", id));
    return event;
  });
}

absl::StatusOr<v1::QueryMetricsResponse> JobStore::Metrics(const std::string& id, int64_t first, int64_t last,
                                                           int64_t max_points) const {
  std::lock_guard lock(read_mutex_);
  v1::QueryMetricsResponse response;
  int64_t begin = 0;
  int64_t end = 0;
  {
    SqliteStatement range(*reader_,
                          "SELECT count(*), min(step), max(step) FROM steps WHERE job_id = ? AND step BETWEEN ? AND ?");
    const auto row = range.Bind(id).Bind(first).Bind(last).Step();
    if (!row.ok()) return row.status();
    response.set_total_steps(range.Integer());
    begin = range.Integer();
    end = range.Integer();
  }
  if (response.total_steps() == 0) return response;
  // Without the newest, which is always there.
  const int64_t stride = std::max<int64_t>(1, (end - begin + max_points - 2) / (max_points - 1));
  SqliteStatement select(*reader_,
                         "SELECT metrics FROM steps WHERE job_id = ? AND step BETWEEN ? AND ? AND ((step - ?) % ? = 0 "
                         "OR step = ?) ORDER BY step");
  select.Bind(id).Bind(begin).Bind(end).Bind(begin).Bind(stride).Bind(end);
  while (true) {
    const auto row = select.Step();
    if (!row.ok()) return row.status();
    if (!*row) return response;
    if (!response.add_steps()->ParseFromString(select.Text())) return Damaged(absl::StrCat("a step of job ", id));
  }
}

absl::StatusOr<std::vector<v1::Checkpoint>> JobStore::Checkpoints(const std::string& id) const {
  std::lock_guard lock(read_mutex_);
  SqliteStatement select(*reader_,
                         "SELECT checkpoint FROM checkpoints WHERE job_id = ? ORDER BY step DESC, epoch DESC");
  select.Bind(id);
  return ReadRows(select, [&id](SqliteStatement& row) -> absl::StatusOr<v1::Checkpoint> {
    v1::Checkpoint checkpoint;
    if (!checkpoint.ParseFromString(row.Text())) return Damaged(absl::StrCat("a checkpoint of job ", id));
    return checkpoint;
  });
}

absl::Status JobStore::Delete(const std::string& id) {
  std::lock_guard lock(write_mutex_);
  SqliteTransaction transaction(*writer_);
  absl::Status status = transaction.Begin();
  for (const char* table : {"checkpoints", "steps", "report_positions", "events", "epochs"}) {
    if (!status.ok()) return status;
    SqliteStatement remove(*writer_, absl::StrCat("DELETE FROM ", table, " WHERE job_id = ?"));
    status = remove.Bind(id).Run();
  }
  if (status.ok()) {
    SqliteStatement remove(*writer_, "DELETE FROM jobs WHERE id = ?");
    status = remove.Bind(id).Run();
  }
  return status.ok() ? transaction.Commit() : status;
}

absl::StatusOr<int64_t> JobStore::LastReport(const std::string& id, int32_t epoch, int32_t rank) const {
  std::lock_guard lock(read_mutex_);
  SqliteStatement select(*reader_, "SELECT sequence FROM report_positions WHERE job_id = ? AND epoch = ? AND rank = ?");
  const auto row = select.Bind(id).Bind(epoch).Bind(rank).Step();
  if (!row.ok()) return row.status();
  return *row ? select.Integer() : 0;
}

}  // namespace temper
