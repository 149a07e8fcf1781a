// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "server/sqlite/sqlite.h"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

JobUpdate NewJob(const std::string& id) {
  JobUpdate update;
  update.record.id = id;
  update.record.job.set_name("jobs/" + id);
  update.record.job.set_state(v1::JOB_STATE_QUEUED);
  update.record.job.set_target(v1::JOB_TARGET_RUN);
  return update;
}

v1::JobEvent Event(int64_t sequence) {
  v1::JobEvent event;
  event.set_sequence(sequence);
  event.mutable_step()->set_step(sequence);
  return event;
}

class JobStoreTest : public testing::Test {
 protected:
  JobStoreTest() { Reopen(); }
  void Reopen() {
    store.reset();
    auto opened = JobStore::Open(directory());
    ASSERT_TRUE(opened.ok()) << opened.status();
    store = *std::move(opened);
  }
  std::filesystem::path directory() { return scratch.path() / "data" / "deep"; }
  std::string database() { return (directory() / "temper.db").string(); }
  std::string OpenError() {
    const auto opened = JobStore::Open(directory());
    EXPECT_FALSE(opened.ok());
    return std::string(opened.status().message());
  }

  ScratchDirectory scratch;
  std::unique_ptr<JobStore> store;
};

TEST_F(JobStoreTest, Record_IsReadBackAsItWasWritten) {
  JobUpdate update = NewJob("a");
  JobRecord& record = update.record;
  record.life.state = v1::JOB_STATE_STOPPING;
  record.life.target = v1::JOB_TARGET_CANCEL;
  record.life.epoch = 4;
  record.life.restarts = 2;
  record.life.export_committed = true;
  record.life.reason = "why";
  record.life.retry_at = FakeClock().Wall();
  record.life.ending = GangEnding{v1::FAILURE_CAUSE_STORAGE, "disk full"};
  record.job.set_state(v1::JOB_STATE_STOPPING);
  record.job.set_target(v1::JOB_TARGET_CANCEL);
  record.job.set_epoch(4);
  record.job.set_restarts(2);
  record.job.set_reason("why");
  record.request_id = "request";
  record.request_digest = "digest";
  record.log_events = 7;
  record.dropped_log_events = 8;
  update.events = {Event(1), Event(2)};
  update.positions = {{4, 0, 12}, {4, -1, 3}};
  EpochRecord epoch;
  epoch.job_id = "a";
  epoch.epoch = 4;
  epoch.launch_time = FakeClock().Wall();
  epoch.run_dir = "/runs/a/e4";
  epoch.token_hash = "hash";
  epoch.launcher_handle = "handle";
  epoch.incarnations = {"1", "", "2"};
  update.epoch = epoch;
  ASSERT_TRUE(store->Create(update).ok());
  Reopen();

  const auto read = store->Get("a");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->life, record.life);
  EXPECT_EQ(read->job.SerializeAsString(), record.job.SerializeAsString());
  EXPECT_EQ(read->request_id, "request");
  EXPECT_EQ(read->request_digest, "digest");
  EXPECT_EQ(read->log_events, 7);
  EXPECT_EQ(read->dropped_log_events, 8);
  EXPECT_EQ(store->FindByRequestId("request")->id, "a");
  EXPECT_EQ(*store->LastReport("a", 4, 0), 12);
  EXPECT_EQ(*store->LastReport("a", 4, -1), 3);
  EXPECT_EQ(*store->LastReport("a", 5, 0), 0);
  const auto read_epoch = store->GetEpoch("a", 4);
  ASSERT_TRUE(read_epoch.ok()) << read_epoch.status();
  EXPECT_EQ(read_epoch->launch_time, epoch.launch_time);
  EXPECT_EQ(read_epoch->run_dir, "/runs/a/e4");
  EXPECT_EQ(read_epoch->token_hash, "hash");
  EXPECT_EQ(read_epoch->launcher_handle, "handle");
  EXPECT_THAT(read_epoch->incarnations, testing::ElementsAre("1", "", "2"));
  EXPECT_EQ(store->Events("a", 1, 10)->at(0).step().step(), 2);
}

TEST_F(JobStoreTest, Record_WithoutWhatIsOptional_IsReadBackWithoutIt) {
  ASSERT_TRUE(store->Create(NewJob("a")).ok());
  ASSERT_TRUE(store->Create(NewJob("b")).ok()) << "two without a request_id";
  const auto read = store->Get("a");
  EXPECT_EQ(read->life, JobLife());
}

TEST_F(JobStoreTest, Update_FailsInTheMiddle_ChangesNothing) {
  JobUpdate update = NewJob("a");
  update.events = {Event(1)};
  ASSERT_TRUE(store->Create(update).ok());
  update.record.log_events = 5;
  update.events = {Event(2), Event(1)};  // 1 is there already
  EXPECT_EQ(store->Update(update).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store->Get("a")->log_events, 0);
  EXPECT_EQ(store->Events("a", 0, 10)->size(), 1u);
}

TEST_F(JobStoreTest, UpdateOfSeveral_OneFails_ChangesNothing) {
  JobUpdate a = NewJob("a"), b = NewJob("b"), missing = NewJob("missing");
  ASSERT_TRUE(store->Create(a).ok());
  ASSERT_TRUE(store->Create(b).ok());
  a.events = {Event(1)};
  b.events = {Event(1), Event(2)};
  const JobUpdate* const with_missing[] = {&a, &missing, &b};
  EXPECT_EQ(store->Update(with_missing).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(*store->Events("a", 0, 10), IsEmpty());
  const JobUpdate* const both[] = {&a, &b};
  EXPECT_TRUE(store->Update(both).ok());
  EXPECT_THAT(*store->Events("a", 0, 10), SizeIs(1));
  EXPECT_THAT(*store->Events("b", 0, 10), SizeIs(2));
}

TEST_F(JobStoreTest, List_FewMatchesAmongMany_AreFoundAllOnceAndInPages) {
  // More than are read at once, on both sides of each match.
  for (int i = 0; i < 405; ++i) {
    JobUpdate update = NewJob("job-" + std::to_string(i));
    if (i % 200 == 2) update.record.job.mutable_spec()->set_owner("ann");
    ASSERT_TRUE(store->Create(update).ok());
  }
  for (const int page_size : {1, 2, 10}) {
    std::vector<std::string> names;
    JobPage page;
    do {
      auto next = store->List({.owner = "ann"}, page_size, page.next_page_token);
      ASSERT_TRUE(next.ok()) << next.status();
      page = *std::move(next);
      ASSERT_LE(page.jobs.size(), static_cast<size_t>(page_size));
      for (const v1::Job& job : page.jobs) names.push_back(job.name());
    } while (!page.next_page_token.empty());
    EXPECT_THAT(names, ElementsAre("jobs/job-402", "jobs/job-202", "jobs/job-2")) << page_size;
  }
  EXPECT_THAT(store->List({}, 405, "")->jobs, SizeIs(405));
  EXPECT_EQ(store->List({}, 405, "")->next_page_token, "");
}

TEST_F(JobStoreTest, CreateAndUpdate_WrongJob_AreRefused) {
  ASSERT_TRUE(store->Create(NewJob("a")).ok());
  EXPECT_EQ(store->Create(NewJob("a")).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store->Update(NewJob("b")).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->Get("b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->GetEpoch("a", 1).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobStoreTest, Unfinished_AreThoseThatHaveNotEndedOldestFirst) {
  for (const char* id : {"c", "b", "a", "z"}) ASSERT_TRUE(store->Create(NewJob(id)).ok());
  JobUpdate ended = NewJob("b");
  ended.record.life.state = v1::JOB_STATE_FAILED;
  ASSERT_TRUE(store->Update(ended).ok());
  const auto records = store->Unfinished();
  ASSERT_TRUE(records.ok()) << records.status();
  std::vector<std::string> ids;
  for (const JobRecord& record : *records) ids.push_back(record.id);
  EXPECT_THAT(ids, testing::ElementsAre("c", "a", "z"));
  EXPECT_THAT(*store->CountByState(),
              testing::ElementsAre(testing::Pair(v1::JOB_STATE_QUEUED, 3), testing::Pair(v1::JOB_STATE_FAILED, 1)));
}

TEST_F(JobStoreTest, Open_DirectoryInUse_NamesTheHolder) {
  EXPECT_THAT(OpenError(), HasSubstr("is in use by another temper-server (pid " + std::to_string(getpid()) + ")"));
  EXPECT_EQ(JobStore::Open(directory()).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(JobStoreTest, Open_NewDirectory_IsForThisUserAlone) {
  struct stat info;
  ASSERT_EQ(stat(directory().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(JobStoreTest, Open_DatabaseOfANewerVersion_IsRefusedAndLeftAlone) {
  ASSERT_TRUE(store->Create(NewJob("a")).ok());
  store.reset();
  {
    auto connection = Sqlite::Open(database(), Sqlite::Mode::kReadWrite);
    ASSERT_TRUE((*connection)->Execute("PRAGMA user_version = 99").ok());
  }
  EXPECT_THAT(OpenError(), HasSubstr("schema version 99, this temper-server knows 5: it was written by a newer"));
  EXPECT_EQ(JobStore::Open(directory()).status().code(), absl::StatusCode::kFailedPrecondition);
  {
    auto connection = Sqlite::Open(database(), Sqlite::Mode::kReadWrite);
    ASSERT_TRUE((*connection)->Execute("PRAGMA user_version = 5").ok());
  }
  Reopen();
  EXPECT_TRUE(store->Get("a").ok());
}

TEST_F(JobStoreTest, Open_DatabaseOfAnOlderVersion_IsBroughtUpToDateWithAllThatItHolds) {
  JobUpdate update = NewJob("a");
  update.epoch = EpochRecord{.job_id = "a", .epoch = 1, .run_dir = "/runs/a/e1"};
  update.record.job.mutable_spec()->set_owner("ada");
  ASSERT_TRUE(store->Create(update).ok());
  store.reset();
  {
    // What version 1 had.
    auto connection = Sqlite::Open(database(), Sqlite::Mode::kReadWrite);
    ASSERT_TRUE((*connection)
                    ->Execute("DROP INDEX jobs_by_owner; ALTER TABLE jobs DROP COLUMN owner; "
                              "ALTER TABLE jobs DROP COLUMN preflight; ALTER TABLE jobs DROP COLUMN preflight_only; "
                              "DROP TABLE steps; DROP TABLE checkpoints; ALTER TABLE epochs DROP COLUMN resume_from; "
                              "ALTER TABLE jobs "
                              "DROP COLUMN restarts_since_checkpoint; PRAGMA user_version = 1")
                    .ok());
  }
  Reopen();
  EXPECT_EQ(store->Get("a")->life.restarts_since_checkpoint, 0);
  EXPECT_FALSE(store->Get("a")->life.preflight);
  EXPECT_EQ(store->GetEpoch("a", 1)->run_dir, "/runs/a/e1");
  EXPECT_THAT(store->GetEpoch("a", 1)->resume_from, IsEmpty());
  EXPECT_THAT(*store->Checkpoints("a"), IsEmpty());
  EXPECT_THAT(store->List({.owner = "ada"}, 10, "")->jobs, SizeIs(1));
  EXPECT_THAT(store->List({.owner = "bob"}, 10, "")->jobs, IsEmpty());
}

TEST_F(JobStoreTest, Metrics_AreThinnedToEveryNthAndTheNewest) {
  JobUpdate update = NewJob("a");
  const auto add = [&](int64_t step, double loss) {
    v1::JobEvent& event = update.events.emplace_back();
    event.set_sequence(static_cast<int64_t>(update.events.size()));
    event.mutable_step()->set_step(step);
    event.mutable_step()->set_loss(loss);
  };
  update.events.clear();
  for (int64_t step = 1; step <= 100; ++step) add(step, 1);
  for (int64_t step = 91; step <= 95; ++step) add(step, 2);  // taken again
  ASSERT_TRUE(store->Create(update).ok());
  const auto steps = [&](int64_t first, int64_t last, int64_t points) {
    const auto answer = store->Metrics("a", first, last, points);
    EXPECT_TRUE(answer.ok()) << answer.status();
    std::vector<int64_t> numbers;
    for (const v1::StepMetrics& step : answer->steps()) numbers.push_back(step.step());
    return numbers;
  };
  EXPECT_THAT(steps(0, INT64_MAX, 1000), SizeIs(100));
  EXPECT_THAT(steps(0, INT64_MAX, 4), ElementsAre(1, 34, 67, 100));
  EXPECT_THAT(steps(0, INT64_MAX, 2), ElementsAre(1, 100));
  EXPECT_THAT(steps(10, 20, 4), ElementsAre(10, 14, 18, 20));
  EXPECT_THAT(steps(98, 500, 10), ElementsAre(98, 99, 100));
  EXPECT_THAT(steps(101, 500, 10), IsEmpty());
  const auto again = store->Metrics("a", 90, 96, 100);
  EXPECT_EQ(again->total_steps(), 7);
  EXPECT_EQ(again->steps(0).loss(), 1);
  EXPECT_EQ(again->steps(1).loss(), 2);
}

TEST_F(JobStoreTest, Checkpoints_AreListedNewestFirstAndGoWithTheirJob) {
  JobUpdate update = NewJob("a");
  for (const CheckpointKey& key : {CheckpointKey{10, 1}, CheckpointKey{20, 2}, CheckpointKey{20, 1}}) {
    v1::Checkpoint& checkpoint = update.checkpoints.emplace_back();
    checkpoint.set_step(key.step);
    checkpoint.set_epoch(key.epoch);
  }
  ASSERT_TRUE(store->Create(update).ok());
  ASSERT_THAT(*store->Checkpoints("a"), SizeIs(3));
  EXPECT_EQ(store->Checkpoints("a")->front().epoch(), 2);
  update.checkpoints.clear();
  update.removed_checkpoints = {{20, 2}};
  ASSERT_TRUE(store->Update(update).ok());
  EXPECT_EQ(store->Checkpoints("a")->front().epoch(), 1);
  ASSERT_TRUE(store->Delete("a").ok());
  EXPECT_TRUE(store->Delete("a").ok());
  EXPECT_THAT(*store->Checkpoints("a"), IsEmpty());
  EXPECT_TRUE(absl::IsNotFound(store->Get("a").status()));
}

TEST_F(JobStoreTest, Open_FileThatIsNoDatabase_IsDataLoss) {
  store.reset();
  std::filesystem::remove(database());
  std::filesystem::remove(database() + "-wal");
  std::filesystem::remove(database() + "-shm");
  std::ofstream(database()) << std::string(4096, 'x');
  EXPECT_EQ(JobStore::Open(directory()).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(OpenError(), HasSubstr(database()));
}

TEST_F(JobStoreTest, Open_DirectoryCannotBeMade_NamesIt) {
  std::ofstream(scratch.path() / "file") << "x";
  const auto opened = JobStore::Open(scratch.path() / "file" / "data");
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr("can't use the data directory: "));
}

// A full disk, played by a limit of the database's size.
TEST_F(JobStoreTest, Write_DiskFull_IsUnavailableAndNothingIsLost) {
  ASSERT_TRUE(store->Create(NewJob("a")).ok());
  store.reset();
  // The limit holds for a connection, so one of our own stands for the store's.
  auto connection = Sqlite::Open(database(), Sqlite::Mode::kReadWrite);
  ASSERT_TRUE((*connection)->Execute("PRAGMA max_page_count = 1").ok());
  const absl::Status status = (*connection)->Execute("CREATE TABLE big AS SELECT randomblob(1000000) AS x");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("database or disk is full"));
  connection->reset();
  Reopen();
  EXPECT_TRUE(store->Get("a").ok());
}

// What a process was told to be kept is there after kill -9.
TEST_F(JobStoreTest, KillNine_LosesNothingThatWasConfirmed) {
  store.reset();
  int confirmations[2];
  ASSERT_EQ(pipe(confirmations), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto opened = JobStore::Open(directory());
    JobUpdate update = NewJob("a");
    if (!opened.ok() || !(*opened)->Create(update).ok()) _exit(1);
    for (int64_t i = 1;; ++i) {
      update.events = {Event(i)};
      update.record.job.set_last_sequence(i);
      if (!(*opened)->Update(update).ok() || write(confirmations[1], &i, sizeof(i)) != sizeof(i)) _exit(1);
    }
  }
  close(confirmations[1]);
  int64_t confirmed = 0;
  while (confirmed < 50) ASSERT_EQ(read(confirmations[0], &confirmed, sizeof(confirmed)), sizeof(confirmed));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  while (read(confirmations[0], &confirmed, sizeof(confirmed)) == sizeof(confirmed)) {
  }
  close(confirmations[0]);
  Reopen();
  const auto events = store->Events("a", 0, 1'000'000);
  ASSERT_TRUE(events.ok()) << events.status();
  EXPECT_GE(static_cast<int64_t>(events->size()), confirmed);
  EXPECT_EQ(store->Get("a")->job.last_sequence(), events->back().sequence());
}

}  // namespace
}  // namespace temper
