// SPDX-License-Identifier: Apache-2.0
#include "server/api/artifacts_api.h"

#include <gmock/gmock.h>

#include <fstream>
#include <iterator>

#include "client/downloader.h"
#include "common/digest.h"
#include "common/storage/object_store.h"
#include "common/storage/publication.h"
#include "tests/server/api/api_fixture.h"

namespace temper {
namespace {

using testing::HasSubstr;

class ArtifactsApiTest : public ApiTest {
 protected:
  void SetUp() override {
    ApiTest::SetUp();
    for (int i = 0; i < (5 << 19); ++i) weights.push_back(static_cast<char>(i * 31 + i / 1000));  // 2.5 MiB
    attachment = Run("a");
  }

  void CommitExport() {
    const std::string output = (scratch.path() / "out").string();
    std::ofstream(scratch.path() / "secret") << "not for you";
    auto opened = ObjectStore::Open(output);
    ASSERT_TRUE(opened.ok()) << opened.status();
    auto publication = Publication::Begin(**opened, "a/export-e0001", "jobs/a", 1);
    ASSERT_TRUE(publication.ok()) << publication.status();
    ASSERT_TRUE((*publication)->Write("config.json", "{}").ok());
    ASSERT_TRUE((*publication)->Write("model.safetensors", weights).ok());
    ASSERT_TRUE((*publication)->Commit().ok());
    v1::RankReport report;
    report.set_sequence(1);
    report.mutable_export_()->set_uri((*publication)->uri());
    Report(attachment, {report});
  }

  absl::StatusOr<std::string> Read(const std::string& path, int64_t offset = 0) {
    std::string all;
    const absl::Status status = Client().ReadArtifact("a", path, offset, [&](std::string_view bytes) {
      EXPECT_LE(bytes.size(), size_t{1} << 20);
      all.append(bytes);
      return absl::OkStatus();
    });
    if (!status.ok()) return status;
    return all;
  }

  std::string weights;
  int64_t attachment = 0;
};

TEST_F(ArtifactsApiTest, NoExportYet_ListIsEmptyAndFilesAreNotFound) {
  const auto list = Client().ListArtifacts("a");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->artifacts_size(), 0);
  EXPECT_TRUE(absl::IsNotFound(Read("config.json").status()));
  EXPECT_TRUE(absl::IsNotFound(Client().ListArtifacts("nobody").status()));
}

TEST_F(ArtifactsApiTest, Export_IsListedAndRead) {
  CommitExport();
  const auto list = Client().ListArtifacts("a");
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->artifacts_size(), 2);
  EXPECT_EQ(list->artifacts(1).path(), "model.safetensors");
  EXPECT_EQ(list->artifacts(1).size_bytes(), static_cast<int64_t>(weights.size()));
  EXPECT_EQ(list->artifacts(1).sha256(), Sha256Hex(weights));
  const auto all = Read("model.safetensors");
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_TRUE(*all == weights);
}

TEST_F(ArtifactsApiTest, Offset_GivesTheRest) {
  CommitExport();
  const auto size = static_cast<int64_t>(weights.size());
  for (const int64_t offset : {int64_t{1}, int64_t{1} << 20, size - 1, size}) {
    const auto rest = Read("model.safetensors", offset);
    ASSERT_TRUE(rest.ok()) << rest.status();
    EXPECT_TRUE(*rest == weights.substr(static_cast<size_t>(offset))) << offset;
  }
  EXPECT_TRUE(absl::IsOutOfRange(Read("model.safetensors", size + 1).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Read("model.safetensors", -1).status()));
}

TEST_F(ArtifactsApiTest, PathsOutsideTheExport_DoNotExist) {
  CommitExport();
  const std::string secret = (scratch.path() / "secret").string();
  for (const std::string& path : std::vector<std::string>{"../../../secret", secret, "a/../../../../secret",
                                                          "./config.json", "manifest.json", "config.json/", "other"}) {
    EXPECT_TRUE(absl::IsNotFound(Read(path).status())) << path << ": " << Read(path).status();
  }
  EXPECT_TRUE(absl::IsInvalidArgument(Read("").status()));
}

TEST_F(ArtifactsApiTest, Download_BringsTheSameBytes) {
  CommitExport();
  const std::string home = (scratch.path() / "home").string();
  const auto result =
      DownloadArtifacts(Client(), "a", home, [](const DownloadProgress&) {}, [](const absl::Status&) {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->files, 2);
  std::ifstream in(home + "/model.safetensors", std::ios::binary);
  EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(in), {}) == weights);
}

class StalledDownloadTest : public ArtifactsApiTest {
 protected:
  StalledDownloadTest() {
    rpc_options.transfers.per_caller = 1;
    rpc_options.transfer_idle_limit = std::chrono::milliseconds(100);
  }
};

TEST_F(StalledDownloadTest, ClientTakesNothing_IsCutOffAndItsPlaceIsFree) {
  CommitExport();
  const auto stub = v1::TrainingService::NewStub(NarrowChannel());
  grpc::ClientContext context;
  v1::ReadArtifactRequest request;
  request.set_parent("jobs/a");
  request.set_path("model.safetensors");
  const auto reader = stub->ReadArtifact(&context, request);
  EXPECT_TRUE(Eventually([&] { return CountEnded("ReadArtifact", absl::StatusCode::kDeadlineExceeded) == 1; }));
  EXPECT_TRUE(Eventually([&] { return Read("config.json").ok(); }));
  v1::ReadArtifactResponse chunk;
  while (reader->Read(&chunk)) continue;
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(ArtifactsApiTest, ExportIsGone_SaysWhere) {
  CommitExport();
  std::filesystem::remove_all(scratch.path() / "out");
  const auto list = Client().ListArtifacts("a");
  EXPECT_FALSE(list.ok());
  EXPECT_THAT(std::string(list.status().message()), HasSubstr("the export of jobs/a at"));
}

}  // namespace
}  // namespace temper
