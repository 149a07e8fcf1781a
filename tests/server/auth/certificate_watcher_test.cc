// SPDX-License-Identifier: Apache-2.0
#include "server/auth/certificate_watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>
#include <vector>

#include "tests/common/scratch_directory.h"
#include "tests/server/auth/test_certificate.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string Subject(const CertificateWatcher& watcher) {
  char text[100] = {};
  X509_NAME_oneline(X509_get_subject_name(SSL_CTX_get0_certificate(watcher.context().get())), text, sizeof text);
  return text;
}

std::string Read(const fs::path& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class CertificateWatcherTest : public testing::Test {
 protected:
  void SetUp() override {
    MakeCertificate(scratch.path(), "first");
    Put("first", "first");
  }

  // In the place of what was there, as a program does that renews certificates.
  void Put(const std::string& certificate, const std::string& key) {
    for (const auto& [from, to] : {std::pair(certificate + ".crt", "tls.crt"), std::pair(key + ".key", "tls.key")}) {
      fs::copy_file(scratch.path() / from, scratch.path() / "part");
      fs::rename(scratch.path() / "part", scratch.path() / to);
    }
  }

  absl::StatusOr<std::unique_ptr<CertificateWatcher>> Start() {
    return CertificateWatcher::Start({scratch.path() / "tls.crt", scratch.path() / "tls.key", client_ca},
                                     scratch.path() / "copies", std::chrono::milliseconds(2),
                                     [this](const absl::Status& status) {
                                       std::lock_guard lock(mutex);
                                       told.push_back(status);
                                       changed.notify_all();
                                     });
  }

  // What was said of the newest change, once something was said of all files as they are.
  bool WaitUntil(const std::function<bool(const absl::Status&)>& condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), [&] { return !told.empty() && condition(told.back()); });
  }

  ScratchDirectory scratch;
  fs::path client_ca;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<absl::Status> told;
};

TEST_F(CertificateWatcherTest, Start_TakesThePairAndKeepsACopyForItsOwnerAlone) {
  const auto watcher = Start();
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  EXPECT_EQ(Subject(**watcher), "/CN=first");
  const TlsFiles copies = (*watcher)->copies();
  EXPECT_THAT(Read(copies.certificate), HasSubstr(Read(scratch.path() / "first.crt")));
  EXPECT_THAT(Read(copies.key), HasSubstr(Read(scratch.path() / "first.key")));
  EXPECT_TRUE(copies.client_ca.empty());
  struct stat status{};
  ASSERT_EQ(::stat(copies.key.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const auto left = (*watcher)->expiry() - std::chrono::system_clock::now();
  EXPECT_GT(left, std::chrono::hours(47));
  EXPECT_LE(left, std::chrono::hours(48));
}

TEST_F(CertificateWatcherTest, NewPair_IsTakenOver) {
  const auto watcher = Start();
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  MakeCertificate(scratch.path(), "second");
  Put("second", "second");
  ASSERT_TRUE(WaitUntil([&](const absl::Status& status) { return status.ok() && Subject(**watcher) == "/CN=second"; }));
  EXPECT_THAT(Read((*watcher)->copies().key), HasSubstr(Read(scratch.path() / "second.key")));
}

TEST_F(CertificateWatcherTest, UnsoundPair_LeavesWhatWasThere) {
  const auto watcher = Start();
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  MakeCertificate(scratch.path(), "second");
  MakeCertificate(scratch.path(), "expired", -1);
  std::ofstream(scratch.path() / "text.crt") << "no certificate";
  std::ofstream(scratch.path() / "text.key") << "no key";
  const auto leaves = [&](const std::string& certificate, const std::string& key, const std::string& why) {
    Put(certificate, key);
    EXPECT_TRUE(WaitUntil([&](const absl::Status& status) {
      return absl::IsFailedPrecondition(status) && std::string(status.message()).find(why) != std::string::npos;
    })) << why;
    EXPECT_EQ(Subject(**watcher), "/CN=first");
    EXPECT_THAT(Read((*watcher)->copies().key), HasSubstr(Read(scratch.path() / "first.key")));
  };
  leaves("second", "first", "tls.key: not the key of");
  leaves("expired", "expired", "tls.crt: has expired");
  // In an order in which no sound pair is there between two puts.
  leaves("second", "text", "tls.key: not the key of");
  leaves("text", "second", "tls.crt: no certificate");
  fs::remove(scratch.path() / "tls.key");
  EXPECT_TRUE(WaitUntil(
      [](const absl::Status& status) { return status.message().find("can't be read") != std::string::npos; }));
  Put("second", "second");
  EXPECT_TRUE(WaitUntil([&](const absl::Status& status) { return status.ok() && Subject(**watcher) == "/CN=second"; }));
}

TEST_F(CertificateWatcherTest, FailureThatPasses_IsTriedAgain) {
  const auto watcher = Start();
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  MakeCertificate(scratch.path(), "second");
  const fs::path obstacle = scratch.path() / "copies/incoming-identity.pem";
  fs::create_directory(obstacle);  // where the copy is written
  Put("second", "second");
  ASSERT_TRUE(WaitUntil([](const absl::Status& status) { return absl::IsUnavailable(status); }));
  EXPECT_EQ(Subject(**watcher), "/CN=first");
  fs::remove(obstacle);
  EXPECT_TRUE(WaitUntil([&](const absl::Status& status) { return status.ok() && Subject(**watcher) == "/CN=second"; }));
  EXPECT_EQ(told.size(), 2u);  // not once a look
}

TEST_F(CertificateWatcherTest, Start_UnsoundFiles_SaysWhichAndWhy) {
  MakeCertificate(scratch.path(), "second");
  Put("first", "second");
  EXPECT_THAT(std::string(Start().status().message()), HasSubstr("tls.key: not the key of"));
  Put("first", "first");
  client_ca = scratch.path() / "ca.crt";
  EXPECT_THAT(std::string(Start().status().message()), HasSubstr("ca.crt: can't be read"));
  std::ofstream(client_ca) << "none";
  EXPECT_THAT(std::string(Start().status().message()), HasSubstr("ca.crt: no certificate"));
  fs::copy_file(scratch.path() / "second.crt", client_ca, fs::copy_options::overwrite_existing);
  const auto watcher = Start();
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  EXPECT_EQ(Read((*watcher)->copies().client_ca), Read(client_ca));
}

}  // namespace
}  // namespace temper
