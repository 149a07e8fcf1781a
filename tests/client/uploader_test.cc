// SPDX-License-Identifier: Apache-2.0
#include "client/uploader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/digest.h"
#include "common/rpc/status.h"
#include "tests/client/fake_training_server.h"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class UploaderTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& content) {
    const std::string path = (scratch_.path() / name).string();
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  absl::StatusOr<UploadResult> Run() {
    return UploadData(
        server_.Client(), spec_,
        [](std::string_view field) { return absl::StrCat("job.yaml:2: ", std::string(field)); },
        [&](const UploadProgress& progress) { total_ = progress.total_bytes; }, [&](const absl::Status&) { ++waits_; });
  }

  static std::string UriOf(const std::string& content, const std::string& name) {
    return absl::StrCat("/uploads/", Sha256Hex(content), "/", name);
  }

  ScratchDirectory scratch_;
  FakeTrainingServer server_;
  v1::JobSpec spec_;
  int64_t total_ = 0;
  int waits_ = 0;
};

TEST_F(UploaderTest, EveryFieldWithSamples_NamesTheServersFiles) {
  const std::string large(2'500'000, 'x');
  v1::DataSource& data = *spec_.mutable_data();
  data.add_sources()->set_uri(Write("a.jsonl", large));
  data.add_sources()->set_uri("file://" +
                              Write("b c.jsonl.gz", "b").replace(scratch_.path().string().size() + 2, 1, "%20"));
  spec_.mutable_validation()->set_uri(Write("v.parquet", "v"));
  spec_.mutable_model()->set_uri("/models/tiny");
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(spec_.data().sources(0).uri(), UriOf(large, "a.jsonl"));
  EXPECT_EQ(spec_.data().sources(1).uri(), UriOf("b", "b c.jsonl.gz"));
  EXPECT_EQ(spec_.validation().uri(), UriOf("v", "v.parquet"));
  EXPECT_EQ(spec_.model().uri(), "/models/tiny");
  EXPECT_TRUE(server_.uploads[absl::StrCat(Sha256Hex(large), "/a.jsonl")] == large);
  EXPECT_EQ(result->files, 3);
  EXPECT_EQ(result->sent_bytes, 2'500'002);
}

TEST_F(UploaderTest, ServerHasTheFile_NothingIsSent) {
  const std::string path = Write("a.jsonl", "content");
  spec_.mutable_data()->set_uri(path);
  ASSERT_TRUE(Run().ok());
  spec_.mutable_data()->set_uri(path);
  const auto again = Run();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(spec_.data().uri(), UriOf("content", "a.jsonl"));
  EXPECT_EQ(again->sent_bytes, 0);
  EXPECT_EQ(again->bytes, 7);
  EXPECT_THAT(server_.uploaded, ElementsAre("a.jsonl"));
}

TEST_F(UploaderTest, ServerHasNoPlace_IsWaitedForAndTold) {
  spec_.mutable_data()->set_uri(Write("a.jsonl", "content"));
  server_.refusals = 2;
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(server_.refusals, 0);
  EXPECT_EQ(waits_, 1);
  EXPECT_EQ(result->sent_bytes, 7);
  EXPECT_THAT(server_.uploaded, ElementsAre("a.jsonl"));
}

TEST_F(UploaderTest, DataInABucket_StaysThere) {
  spec_.mutable_data()->set_uri("s3://bucket/a.jsonl");
  spec_.mutable_validation()->set_uri(Write("v.jsonl", "v"));
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(spec_.data().uri(), "s3://bucket/a.jsonl");
  EXPECT_EQ(result->files, 1);
}

TEST_F(UploaderTest, NoSuchFileOrADirectory_SaysWhere) {
  spec_.mutable_data()->set_uri("/nowhere/a.jsonl");
  EXPECT_EQ(Run().status(),
            absl::InvalidArgumentError(
                "job.yaml:2: data.uri: /nowhere/a.jsonl can't be uploaded: there is no such file on this machine"));
  spec_.mutable_data()->set_uri(scratch_.path().string());
  EXPECT_THAT(std::string(Run().status().message()), HasSubstr("it is a directory"));
  EXPECT_THAT(server_.uploaded, IsEmpty());
}

TEST_F(UploaderTest, ServerRefuses_SaysWhyInTheUsersTerms) {
  spec_.mutable_data()->set_uri(Write("a.jsonl", "content"));
  server_.upload_error = ToGrpcStatus(InvalidFields({{"header.size_bytes", "has 2 MiB"}}));
  EXPECT_THAT(std::string(Run().status().message()), HasSubstr("data.uri: /"));
  EXPECT_THAT(std::string(Run().status().message()), HasSubstr("a.jsonl can't be uploaded: has 2 MiB"));
  server_.upload_error = grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "");
  EXPECT_THAT(std::string(Run().status().message()), HasSubstr("a version that takes no uploads"));
  server_.Stop();
  EXPECT_TRUE(absl::IsUnavailable(Run().status()));
}

}  // namespace
}  // namespace temper
