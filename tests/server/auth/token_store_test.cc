// SPDX-License-Identifier: Apache-2.0
#include "server/auth/token_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/rpc/status.h"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

using std::chrono::hours;
using testing::HasSubstr;

class TokenStoreTest : public testing::Test {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    store.reset();
    auto opened = TokenStore::Open(scratch.path() / "data", clock);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store = *std::move(opened);
  }

  CreatedToken Create(const std::string& name = "ana", Role role = Role::kSubmitter,
                      std::optional<std::chrono::seconds> lifetime = std::nullopt) {
    auto created = store->Create({name, role}, lifetime);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.value_or(CreatedToken());
  }

  std::string Refusal(const std::string& token) {
    const auto identity = store->Authenticate(token);
    EXPECT_TRUE(absl::IsUnauthenticated(identity.status())) << identity.status();
    return ReasonOf(identity.status());
  }

  ScratchDirectory scratch;
  FakeClock clock;
  std::unique_ptr<TokenStore> store;
};

TEST_F(TokenStoreTest, Authenticate_KnowsWhoseTokenItIs) {
  const CreatedToken ana = Create("ana", Role::kSubmitter), root = Create("root", Role::kAdmin);
  Open();  // it is on the disk
  const auto identity = store->Authenticate(ana.token);
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->name, "ana");
  EXPECT_EQ(identity->role, Role::kSubmitter);
  EXPECT_EQ(store->Authenticate(root.token)->role, Role::kAdmin);
}

TEST_F(TokenStoreTest, Authenticate_AnythingElse_IsRefused) {
  const CreatedToken ana = Create("ana"), ben = Create("ben");
  const std::string secret = ana.token.substr(ana.token.rfind('_') + 1);
  std::string other = ana.token;
  other.back() = other.back() == '0' ? '1' : '0';
  for (const std::string& token :
       {std::string(), std::string("temper_"), std::string("temper__"), "temper_" + ana.record.id, secret, other,
        ana.token + "0", "temper_" + ben.record.id + "_" + secret, "temper_" + ana.record.id + "_",
        "Temper" + ana.token.substr(6), "temper_%_" + secret, ana.token.substr(0, 30) + std::string(1, '\0')}) {
    EXPECT_EQ(Refusal(token), "TOKEN_WRONG") << token;
  }
}

TEST_F(TokenStoreTest, Authenticate_Expired_SaysSoFromThatMomentOn) {
  const CreatedToken token = Create("ana", Role::kReader, hours(1));
  clock.Advance(hours(1) - std::chrono::seconds(1));
  EXPECT_TRUE(store->Authenticate(token.token).ok());
  clock.Advance(std::chrono::seconds(1));
  EXPECT_EQ(Refusal(token.token), "TOKEN_EXPIRED");
}

TEST_F(TokenStoreTest, Revoke_HoldsFromTheNextCallOnInEveryProcess) {
  const CreatedToken token = Create();
  auto other = TokenStore::Open(scratch.path() / "data", clock);  // as `temper-server token` beside a server
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_TRUE(store->Authenticate(token.token).ok());
  const WallTime now = clock.Wall();
  ASSERT_EQ((*other)->Revoke(token.record.id)->revoke_time, now);
  EXPECT_EQ(Refusal(token.token), "TOKEN_REVOKED");
  clock.Advance(hours(1));
  EXPECT_EQ((*other)->Revoke(token.record.id)->revoke_time, now);
  EXPECT_TRUE(absl::IsNotFound(store->Revoke("0123456789abcdef").status()));
}

TEST_F(TokenStoreTest, List_HasEverythingButTheSecret) {
  const CreatedToken first = Create("ana", Role::kReader, hours(2)), second = Create("ben");
  ASSERT_TRUE(store->Revoke(second.record.id).ok());
  const auto list = store->List();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 2u);
  EXPECT_EQ((*list)[0].id, first.record.id);
  EXPECT_EQ((*list)[0].identity.name, "ana");
  EXPECT_EQ((*list)[0].identity.role, Role::kReader);
  EXPECT_EQ((*list)[0].create_time, clock.Wall());
  EXPECT_EQ((*list)[0].expire_time, clock.Wall() + hours(2));
  EXPECT_EQ((*list)[0].revoke_time, std::nullopt);
  EXPECT_EQ((*list)[1].revoke_time, clock.Wall());
}

TEST_F(TokenStoreTest, Files_AreTheOwnersAloneAndHaveNoSecret) {
  const CreatedToken created = Create();
  const std::string secret = created.token.substr(created.token.rfind('_') + 1);
  struct stat directory{};
  ASSERT_EQ(::stat((scratch.path() / "data").c_str(), &directory), 0);
  EXPECT_EQ(directory.st_mode & 0777, 0700u);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path() / "data")) {
    struct stat status{};
    ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u) << entry.path();
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    EXPECT_EQ(bytes.find(secret), std::string::npos) << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 3);  // the database, its log and its index
}

TEST_F(TokenStoreTest, Create_WhatIsWrong_IsSaid) {
  for (const std::string& name : {std::string(), std::string("a b"), std::string("a\n"), std::string(101, 'a')}) {
    EXPECT_EQ(FieldViolationsOf(store->Create({name, Role::kReader}, std::nullopt).status()).at(0).field, "identity");
  }
  EXPECT_EQ(FieldViolationsOf(store->Create({"ana", Role::kReader}, hours(0)).status()).at(0).field, "lifetime");
}

TEST_F(TokenStoreTest, Open_NoDatabase_SaysSo) {
  store.reset();
  for (const char* file : {"tokens.db", "tokens.db-wal", "tokens.db-shm"}) {
    std::filesystem::remove(scratch.path() / "data" / file);
  }
  std::ofstream(scratch.path() / "data/tokens.db") << std::string(4096, 'x');
  EXPECT_TRUE(absl::IsDataLoss(TokenStore::Open(scratch.path() / "data", clock).status()));
}

}  // namespace
}  // namespace temper
