// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/upload_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class UploadStoreTest : public testing::Test {
 protected:
  UploadStoreTest() { Open(); }

  void Open() {
    store.reset();
    auto opened = UploadStore::Open(options, clock);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store = *std::move(opened);
  }

  static v1::UploadHeader HeaderOf(const std::string& content, const std::string& name = "train.jsonl") {
    v1::UploadHeader header;
    header.set_file_name(name);
    header.set_sha256(Sha256Hex(content));
    header.set_size_bytes(static_cast<int64_t>(content.size()));
    return header;
  }

  absl::StatusOr<v1::Upload> Send(const std::string& content, const v1::UploadHeader& header) {
    auto upload = store->Begin(header);
    if (!upload.ok()) return upload.status();
    for (size_t at = 0; at < content.size(); at += 3) {
      if (absl::Status status = (*upload)->Write(content.substr(at, 3)); !status.ok()) return status;
    }
    return (*upload)->Commit();
  }
  absl::StatusOr<v1::Upload> Send(const std::string& content) { return Send(content, HeaderOf(content)); }

  // Every file below the directory, whole or not.
  std::vector<std::string> Files() const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(options.directory)) {
      if (entry.is_regular_file()) files.push_back(entry.path().lexically_relative(options.directory).string());
    }
    return files;
  }

  void Collect(const std::set<std::string>& used) {
    const absl::Status status = store->Collect([&used]() -> absl::StatusOr<std::set<std::string>> { return used; });
    EXPECT_TRUE(status.ok()) << status;
  }

  static std::string Problem(const absl::Status& status) { return std::string(status.message()); }

  ScratchDirectory scratch;
  FakeClock clock;
  UploadOptions options{.directory = scratch.path() / "uploads", .max_file_bytes = 100, .max_total_bytes = 250};
  std::unique_ptr<UploadStore> store;
};

TEST_F(UploadStoreTest, Commit_MakesTheFileReadableUnderItsUri) {
  const auto upload = Send("{\"text\": 1}\n");
  ASSERT_TRUE(upload.ok()) << upload.status();
  EXPECT_EQ(upload->uri(), (options.directory / Sha256Hex("{\"text\": 1}\n") / "train.jsonl").string());
  std::ifstream in(upload->uri());
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "{\"text\": 1}\n");
  const auto found = store->Find(HeaderOf("{\"text\": 1}\n"));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->uri(), upload->uri());
}

TEST_F(UploadStoreTest, NotThere_IsNotFoundByNameAndContent) {
  ASSERT_TRUE(Send("content").ok());
  EXPECT_TRUE(absl::IsNotFound(store->Find(HeaderOf("other")).status()));
  EXPECT_TRUE(absl::IsNotFound(store->Find(HeaderOf("content", "other.jsonl")).status()));
}

TEST_F(UploadStoreTest, BytesAreNotWhatWasAnnounced_NothingStays) {
  const v1::UploadHeader header = HeaderOf("content");
  for (const char* sent : {"c0ntent", "conten", "contents"}) {
    const auto upload = Send(sent, header);
    EXPECT_TRUE(absl::IsInvalidArgument(upload.status())) << sent << ": " << upload.status();
    EXPECT_THAT(Problem(upload.status()), HasSubstr("did the file change while it was sent?"));
  }
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(UploadStoreTest, Abandoned_NothingStaysAndTheRoomIsFree) {
  for (int i = 0; i < 10; ++i) {
    auto upload = store->Begin(HeaderOf(std::string(100, 'a')));
    ASSERT_TRUE(upload.ok()) << upload.status();
    ASSERT_TRUE((*upload)->Write("aaa").ok());
  }
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(UploadStoreTest, ServerDiedMeanwhile_TheNextOneTidiesUp) {
  ASSERT_TRUE(Send("content").ok());
  std::filesystem::create_directories(options.directory / "incoming");
  std::ofstream(options.directory / "incoming/1.temper-partial") << "half";
  Open();
  EXPECT_THAT(Files(), ElementsAre(Sha256Hex("content") + "/train.jsonl"));
}

TEST_F(UploadStoreTest, SameFileTwiceAtOnce_BothSucceed) {
  auto first = store->Begin(HeaderOf("content")), second = store->Begin(HeaderOf("content"));
  ASSERT_TRUE(first.ok() && second.ok());
  ASSERT_TRUE((*first)->Write("con").ok());
  ASSERT_TRUE((*second)->Write("content").ok());
  ASSERT_TRUE((*first)->Write("tent").ok());
  EXPECT_TRUE((*second)->Commit().ok());
  EXPECT_TRUE((*first)->Commit().ok());
  EXPECT_THAT(Files(), ElementsAre(Sha256Hex("content") + "/train.jsonl"));
}

TEST_F(UploadStoreTest, NamesThatLeadElsewhere_AreRefused) {
  for (const std::string& name :
       {std::string(), std::string("../x.jsonl"), std::string("a/b.jsonl"), std::string(".."), std::string(".hidden"),
        std::string("a\nb"), std::string("a\0b", 3), std::string(201, 'n')}) {
    const auto upload = Send("content", HeaderOf("content", name));
    EXPECT_TRUE(absl::IsInvalidArgument(upload.status())) << name << ": " << upload.status();
    EXPECT_THAT(Problem(upload.status()), HasSubstr("header.file_name"));
    EXPECT_TRUE(absl::IsInvalidArgument(store->Find(HeaderOf("content", name)).status())) << name;
  }
  v1::UploadHeader header = HeaderOf("content");
  header.set_sha256("../../../etc");
  EXPECT_THAT(Problem(store->Find(header).status()), HasSubstr("header.sha256"));
  header.set_sha256(std::string(64, 'A'));
  EXPECT_THAT(Problem(store->Find(header).status()), HasSubstr("header.sha256"));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(UploadStoreTest, TooLargeOrEmpty_IsRefusedBeforeAnyByte) {
  EXPECT_THAT(Problem(store->Begin(HeaderOf(std::string(101, 'x'))).status()),
              HasSubstr("takes files of at most 1 MiB (--max-upload-mb)"));
  EXPECT_THAT(Problem(store->Begin(HeaderOf("")).status()), HasSubstr("an empty file has no samples"));
  options.max_file_bytes = 0;
  Open();
  const auto disabled = store->Begin(HeaderOf("content"));
  EXPECT_TRUE(absl::IsFailedPrecondition(disabled.status())) << disabled.status();
  EXPECT_EQ(ReasonOf(disabled.status()), "UPLOADS_DISABLED");
}

TEST_F(UploadStoreTest, AllTogetherTooMuch_IsRefused) {
  ASSERT_TRUE(Send(std::string(100, 'a')).ok());
  {
    const auto incoming = store->Begin(HeaderOf(std::string(100, 'b')));
    ASSERT_TRUE(incoming.ok()) << incoming.status();
    const auto third = store->Begin(HeaderOf(std::string(51, 'c')));
    EXPECT_TRUE(absl::IsResourceExhausted(third.status())) << third.status();
    EXPECT_EQ(ReasonOf(third.status()), "NO_ROOM_FOR_UPLOADS");
    EXPECT_THAT(Problem(third.status()), HasSubstr("--max-uploads-mb"));
    EXPECT_TRUE(store->Begin(HeaderOf(std::string(50, 'c'))).ok());
  }
  EXPECT_TRUE(store->Begin(HeaderOf(std::string(100, 'c'))).ok());
}

TEST_F(UploadStoreTest, MoreThanHalfOfTheDisk_IsRefused) {
  options.max_file_bytes = options.max_total_bytes = INT64_MAX / 4;
  Open();
  v1::UploadHeader header = HeaderOf("content");
  header.set_size_bytes(static_cast<int64_t>(std::filesystem::space(options.directory).available / 2 + (64 << 20)));
  const auto upload = store->Begin(header);
  EXPECT_TRUE(absl::IsResourceExhausted(upload.status())) << upload.status();
  EXPECT_THAT(Problem(upload.status()), HasSubstr("half of which it keeps for itself"));
}

TEST_F(UploadStoreTest, Collect_TakesWhatNoJobReadsAfterItsTime) {
  ASSERT_TRUE(Send("read").ok());
  ASSERT_TRUE(Send("unread").ok());
  ASSERT_TRUE(Send("asked for").ok());
  clock.Advance(minutes(40));
  ASSERT_TRUE(store->Find(HeaderOf("asked for")).ok());
  Collect({Sha256Hex("read")});
  EXPECT_EQ(Files().size(), 3);
  clock.Advance(minutes(21));
  Collect({Sha256Hex("read")});
  EXPECT_TRUE(store->Find(HeaderOf("read")).ok());
  EXPECT_TRUE(store->Find(HeaderOf("asked for")).ok());
  EXPECT_TRUE(absl::IsNotFound(store->Find(HeaderOf("unread")).status()));
}

TEST_F(UploadStoreTest, Collect_AfterARestart_GivesTimeAnew) {
  ASSERT_TRUE(Send("content").ok());
  clock.Advance(hours(10));
  Open();
  Collect({});
  EXPECT_TRUE(store->Find(HeaderOf("content")).ok());
  clock.Advance(minutes(61));
  Collect({});
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(UploadStoreTest, Collect_DateIsSet_MakesNothingOlder) {
  ASSERT_TRUE(Send("content").ok());
  clock.SetWall(clock.Wall() + hours(24 * 365));
  Collect({});
  EXPECT_EQ(Files().size(), 1);
}

TEST_F(UploadStoreTest, Collect_UsersAreUnknown_TakesNothing) {
  ASSERT_TRUE(Send("content").ok());
  clock.Advance(hours(2));
  const absl::Status status =
      store->Collect([]() -> absl::StatusOr<std::set<std::string>> { return absl::UnavailableError("disk"); });
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_EQ(Files().size(), 1);
}

TEST(UploadStoreDigestIn, UriOfAnUpload_GivesTheDigest) {
  const std::string digest(64, 'a');
  EXPECT_EQ(UploadStore::DigestIn(absl::StrCat("/data/uploads/", digest, "/x.jsonl")), digest);
  EXPECT_EQ(UploadStore::DigestIn(absl::StrCat("file:///uploads/d/uploads/", digest, "/*.jsonl")), digest);
  EXPECT_EQ(UploadStore::DigestIn("/data/uploads/mine/x.jsonl"), "");
  EXPECT_EQ(UploadStore::DigestIn("/data/train.jsonl"), "");
}

}  // namespace
}  // namespace temper
