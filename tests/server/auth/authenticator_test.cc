// SPDX-License-Identifier: Apache-2.0
#include "server/auth/authenticator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/rpc/status.h"
#include "server/sqlite/sqlite.h"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

constexpr char kRead[] = "/temper.v1.TrainingService/GetJob";
constexpr char kSubmit[] = "/temper.v1.TrainingService/CreateJob";
constexpr char kCancel[] = "/temper.v1.TrainingService/CancelJob";
constexpr char kTokens[] = "/temper.v1.TokenService/ListTokens";

class AuthenticatorTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = TokenStore::Open(scratch.path(), clock);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store = *std::move(opened);
  }

  std::string Header(Role role) { return "Bearer " + store->Create({"ana", role}, std::nullopt)->token; }

  ScratchDirectory scratch;
  FakeClock clock;
  std::unique_ptr<TokenStore> store;
};

TEST_F(AuthenticatorTest, Admit_EachRole_MayDoWhatThoseBeforeItMay) {
  const Authenticator authenticator(store.get());
  const std::string reader = Header(Role::kReader), submitter = Header(Role::kSubmitter), admin = Header(Role::kAdmin);
  EXPECT_TRUE(authenticator.Admit(kRead, reader).ok());
  EXPECT_EQ(ReasonOf(authenticator.Admit(kSubmit, reader).status()), "ROLE_TOO_LOW");
  EXPECT_TRUE(authenticator.Admit(kRead, submitter).ok());
  EXPECT_TRUE(authenticator.Admit(kSubmit, submitter).ok());
  const absl::Status low = authenticator.Admit(kTokens, submitter).status();
  EXPECT_TRUE(absl::IsPermissionDenied(low)) << low;
  EXPECT_EQ(low.message(), "ana is submitter, and this takes admin");
  for (const char* route : {kRead, kSubmit, kCancel, kTokens}) EXPECT_TRUE(authenticator.Admit(route, admin).ok());
}

TEST_F(AuthenticatorTest, Admit_NoBearerToken_IsUnauthenticated) {
  const Authenticator authenticator(store.get());
  const std::string token = Header(Role::kAdmin).substr(7);
  for (const std::string& header :
       {std::string(), std::string("Bearer"), std::string("Bearer "), token, "Basic " + token, "Bearer\t" + token}) {
    const absl::Status status = authenticator.Admit(kRead, header).status();
    EXPECT_TRUE(absl::IsUnauthenticated(status)) << header;
    EXPECT_EQ(ReasonOf(status), "TOKEN_MISSING") << header;
  }
  EXPECT_TRUE(authenticator.Admit(kRead, "bearer " + token).ok());  // RFC 9110: the scheme's case does not matter
}

TEST_F(AuthenticatorTest, Admit_WithoutTokens_EverybodyIsAnAdminWithoutAName) {
  const auto caller = Authenticator(nullptr).Admit(kTokens, "");
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->name, "");
  EXPECT_EQ(caller->role, Role::kAdmin);
}

TEST_F(AuthenticatorTest, Admit_WhoIsRefusedForTheRole_IsKnown) {
  const Authenticator authenticator(store.get());
  Identity known;
  EXPECT_FALSE(authenticator.Admit(kTokens, Header(Role::kSubmitter), &known).ok());
  EXPECT_EQ(known.name, "ana");
  EXPECT_EQ(known.role, Role::kSubmitter);
  Identity unknown;
  EXPECT_FALSE(authenticator.Admit(kTokens, "Bearer temper_0_0", &unknown).ok());
  EXPECT_EQ(unknown.name, "");
}

TEST_F(AuthenticatorTest, Admit_StoreFails_CallersLearnNothingOfIt) {
  const std::string header = Header(Role::kAdmin);
  auto database = Sqlite::Open((scratch.path() / "tokens.db").string(), Sqlite::Mode::kReadWrite);
  ASSERT_TRUE(database.ok()) << database.status();
  ASSERT_TRUE((*database)->Execute("UPDATE tokens SET role = 'none of ours'").ok());
  EXPECT_EQ(Authenticator(store.get()).Admit(kRead, header).status(),
            absl::UnavailableError("the server can't look up tokens"));
}

TEST_F(AuthenticatorTest, Admit_RouteWithoutARule_IsOpenToNobody) {
  const std::string admin = Header(Role::kAdmin);
  for (const char* route : {"/temper.v1.TrainingService/Other", "GET /other", ""}) {
    EXPECT_TRUE(absl::IsPermissionDenied(Authenticator(store.get()).Admit(route, admin).status())) << route;
    EXPECT_TRUE(absl::IsPermissionDenied(Authenticator(nullptr).Admit(route, "").status())) << route;
  }
}

TEST_F(AuthenticatorTest, CheckOwner_OthersJobs_AreForAdmins) {
  const Identity ana{"ana", Role::kSubmitter}, root{"root", Role::kAdmin}, nobody{"", Role::kSubmitter};
  EXPECT_TRUE(Authenticator::CheckOwner(kCancel, ana, "ana").ok());
  EXPECT_EQ(ReasonOf(Authenticator::CheckOwner(kCancel, ana, "ben")), "NOT_THE_OWNER");
  EXPECT_EQ(ReasonOf(Authenticator::CheckOwner(kCancel, ana, "")), "NOT_THE_OWNER");
  EXPECT_EQ(ReasonOf(Authenticator::CheckOwner(kCancel, nobody, "")), "NOT_THE_OWNER");
  EXPECT_TRUE(Authenticator::CheckOwner(kCancel, root, "ana").ok());
  EXPECT_TRUE(Authenticator::CheckOwner(kRead, ana, "ben").ok());
}

}  // namespace
}  // namespace temper
