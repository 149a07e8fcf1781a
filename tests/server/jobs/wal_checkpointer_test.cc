// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/wal_checkpointer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

class WalCheckpointerTest : public testing::Test {
 protected:
  WalCheckpointerTest() : writer(Open()) {
    // What is on the disk is not this test's subject: no flushes.
    EXPECT_TRUE(writer->Execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t (x BLOB)").ok());
  }

  std::string path() const { return (scratch.path() / "test.db").string(); }

  std::unique_ptr<Sqlite> Open() {
    auto connection = Sqlite::Open(path(), Sqlite::Mode::kReadWrite);
    EXPECT_TRUE(connection.ok()) << connection.status();
    return *std::move(connection);
  }

  void Insert() {
    std::lock_guard lock(write_mutex);
    ASSERT_TRUE(writer->Execute("INSERT INTO t VALUES (randomblob(100000))").ok());
    ++inserted;
  }

  // Changes when the log begins anew.
  std::string LogHeader() const {
    std::ifstream log(path() + "-wal", std::ios::binary);
    std::string header(32, '\0');
    log.read(header.data(), 32);
    return header;
  }

  int64_t Rows(Sqlite& connection) {
    SqliteStatement count(connection, "SELECT count(*) FROM t");
    EXPECT_TRUE(count.Step().ok());
    return count.Integer();
  }

  ScratchDirectory scratch;
  std::mutex write_mutex;
  std::unique_ptr<Sqlite> writer;
  int64_t inserted = 0;
};

TEST_F(WalCheckpointerTest, CommitsFollowEachOther_TheLogBeginsAnewAllTheSame) {
  Insert();
  const std::string first = LogHeader();
  {
    WalCheckpointer checkpointer(*writer, write_mutex, Open(), {.pages = 50, .most_pages = 200});
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (LogHeader() == first && std::chrono::steady_clock::now() < deadline) Insert();
    EXPECT_NE(LogHeader(), first) << "after " << inserted << " commits";
  }
  Insert();
  EXPECT_EQ(Rows(*Open()), inserted);
}

}  // namespace
}  // namespace temper
