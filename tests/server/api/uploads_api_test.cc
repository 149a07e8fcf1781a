// SPDX-License-Identifier: Apache-2.0
#include "server/api/uploads_api.h"

#include <gmock/gmock.h>

#include <fstream>
#include <iterator>

#include "client/uploader.h"
#include "common/digest.h"
#include "common/rpc/status.h"
#include "tests/server/api/api_fixture.h"

namespace temper {
namespace {

using testing::HasSubstr;

class UploadsApiTest : public ApiTest {
 protected:
  UploadsApiTest() {
    for (int i = 0; i < (5 << 19); ++i) content.push_back(static_cast<char>(i * 31 + i / 1000));  // 2.5 MiB
    header.set_file_name("train.jsonl");
    header.set_sha256(Sha256Hex(content));
    header.set_size_bytes(static_cast<int64_t>(content.size()));
  }

  absl::StatusOr<v1::Upload> Send() {
    size_t at = 0;
    return Client().UploadFile(header, [&]() -> absl::StatusOr<std::string> {
      std::string piece = content.substr(std::min(at, content.size()), 1 << 20);
      at += piece.size();
      return piece;
    });
  }

  // A call as no client of ours makes it.
  absl::Status SendRaw(const std::vector<v1::UploadFileRequest>& messages) {
    const auto stub =
        v1::TrainingService::NewStub(grpc::CreateChannel(server->address().Text(), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::Upload upload;
    const auto writer = stub->UploadFile(&context, &upload);
    for (const auto& message : messages) {
      if (!writer->Write(message)) break;
    }
    writer->WritesDone();
    return FromGrpcStatus(writer->Finish());
  }

  std::string content;
  v1::UploadHeader header;
};

TEST_F(UploadsApiTest, File_IsKeptAndFoundAgain) {
  EXPECT_TRUE(absl::IsNotFound(Client().FindUpload(header).status()));
  const auto upload = Send();
  ASSERT_TRUE(upload.ok()) << upload.status();
  std::ifstream in(upload->uri(), std::ios::binary);
  EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(in), {}) == content);
  const auto found = Client().FindUpload(header);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->uri(), upload->uri());
  EXPECT_EQ(CountEnded("UploadFile", absl::StatusCode::kOk), 2);
}

class FewTransfersTest : public UploadsApiTest {
 protected:
  FewTransfersTest() { rpc_options.transfers.per_caller = 1; }
};

TEST_F(FewTransfersTest, UploadThatIsNotOver_HoldsTheOnlyPlace) {
  const auto stub =
      v1::TrainingService::NewStub(grpc::CreateChannel(server->address().Text(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::Upload upload;
  const auto writer = stub->UploadFile(&context, &upload);
  const auto refused = [&] { return absl::IsResourceExhausted(Client().FindUpload(header).status()); };
  EXPECT_TRUE(Eventually(refused));
  const absl::Status download =
      Client().ReadArtifact("a", "config.json", 0, [](std::string_view) { return absl::OkStatus(); });
  EXPECT_TRUE(absl::IsResourceExhausted(download)) << download;
  EXPECT_THAT(std::string(download.message()), HasSubstr("(temper-server --max-transfers)"));
  context.TryCancel();
  writer->Finish();
  EXPECT_TRUE(Eventually([&] { return !refused(); }));
}

TEST_F(FewTransfersTest, AnotherUpload_WaitsForThePlace) {
  const auto stub =
      v1::TrainingService::NewStub(grpc::CreateChannel(server->address().Text(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::Upload upload;
  const auto holder = stub->UploadFile(&context, &upload);
  ASSERT_TRUE(Eventually([&] { return absl::IsResourceExhausted(Client().FindUpload(header).status()); }));
  const std::string local = (scratch.path() / "mine.jsonl").string();
  std::ofstream(local) << content;
  v1::JobSpec spec;
  spec.mutable_data()->set_uri(local);
  int waits = 0;
  const auto sent = UploadData(
      Client(), spec, [](std::string_view field) { return std::string(field); }, [](const UploadProgress&) {},
      [&](const absl::Status&) {
        ++waits;
        context.TryCancel();
      });
  holder->Finish();
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(sent->sent_bytes, header.size_bytes());
  EXPECT_EQ(waits, 1);
}

class StalledUploadTest : public UploadsApiTest {
 protected:
  StalledUploadTest() {
    rpc_options.transfers.per_caller = 1;
    rpc_options.transfer_idle_limit = kLimit;
  }

  static constexpr std::chrono::milliseconds kLimit{1000};
};

TEST_F(StalledUploadTest, ClientSendsNoMore_IsEndedAndItsPlaceIsFree) {
  v1::UploadFileRequest head;
  *head.mutable_header() = header;
  const auto stub =
      v1::TrainingService::NewStub(grpc::CreateChannel(server->address().Text(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::Upload upload;
  const auto writer = stub->UploadFile(&context, &upload);
  ASSERT_TRUE(writer->Write(head));
  const absl::Status status = FromGrpcStatus(writer->Finish());
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_EQ(status.message(), "the client has neither sent nor taken anything for 1s");
  EXPECT_EQ(CountEnded("UploadFile", absl::StatusCode::kDeadlineExceeded), 1);
  EXPECT_TRUE(Eventually([&] { return absl::IsNotFound(Client().FindUpload(header).status()); }));
}

TEST_F(StalledUploadTest, ClientSendsLittleAtATime_IsNotEnded) {
  const auto end = std::chrono::steady_clock::now() + 3 * kLimit / 2;
  size_t sent = 0;
  const auto upload = Client().UploadFile(header, [&]() -> absl::StatusOr<std::string> {
    const bool slow = std::chrono::steady_clock::now() < end;
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const std::string piece = content.substr(sent, slow ? 16 : 1 << 20);
    sent += piece.size();
    return piece;
  });
  EXPECT_TRUE(upload.ok()) << upload.status();
}

TEST_F(UploadsApiTest, TooLarge_IsToldBeforeTheEnd) {
  Halt();
  upload_options.max_file_bytes = 1000;
  Boot();
  const auto upload = Send();
  EXPECT_TRUE(absl::IsInvalidArgument(upload.status())) << upload.status();
  ASSERT_EQ(FieldViolationsOf(upload.status()).size(), 1);
  EXPECT_EQ(FieldViolationsOf(upload.status())[0].field, "header.size_bytes");
}

TEST_F(UploadsApiTest, BytesAreOthers_IsRefused) {
  content[1'500'000] ^= 1;
  EXPECT_THAT(std::string(Send().status().message()), HasSubstr("did the file change while it was sent?"));
}

TEST_F(UploadsApiTest, MessagesOutOfOrder_AreRefused) {
  v1::UploadFileRequest head, data;
  *head.mutable_header() = header;
  data.set_data("x");
  EXPECT_TRUE(absl::IsInvalidArgument(SendRaw({})));
  EXPECT_TRUE(absl::IsInvalidArgument(SendRaw({data})));
  EXPECT_TRUE(absl::IsInvalidArgument(SendRaw({head, head})));
  EXPECT_TRUE(absl::IsInvalidArgument(SendRaw({head, data, head})));
}

TEST_F(UploadsApiTest, ClientGivesUp_LeavesNothing) {
  int pieces = 0;
  const auto upload = Client().UploadFile(header, [&]() -> absl::StatusOr<std::string> {
    if (++pieces > 1) return absl::InvalidArgumentError("the disk is gone");
    return content.substr(0, 1 << 20);
  });
  EXPECT_EQ(upload.status().message(), "the disk is gone");
  const auto ended_with = [this](absl::StatusCode code) { return CountEnded("UploadFile", code); };
  EXPECT_TRUE(Eventually([&] {  // what comes first: the end of the bytes, or the word that the call is cancelled
    return ended_with(absl::StatusCode::kCancelled) + ended_with(absl::StatusCode::kInvalidArgument) == 1;
  }));
  EXPECT_TRUE(absl::IsNotFound(Client().FindUpload(header).status()));
}

TEST_F(UploadsApiTest, JobsData_IsSentOnceAndStaysWhileTheJobDoes) {
  const std::string local = (scratch.path() / "mine.jsonl").string();
  std::ofstream(local) << content;
  v1::CreateJobRequest request;
  request.set_job_id("a");
  v1::JobSpec& spec = *request.mutable_job()->mutable_spec();
  spec = ValidSpec();
  spec.mutable_data()->set_uri(local);
  const auto where = [](std::string_view field) { return std::string(field); };
  const auto sent = UploadData(Client(), spec, where, [](const UploadProgress&) {}, [](const absl::Status&) {});
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(sent->sent_bytes, header.size_bytes());
  ASSERT_TRUE(controller->Create(request).ok());

  const std::string uri = spec.data().uri();
  clock.Advance(std::chrono::hours(2));
  Settle();
  EXPECT_TRUE(std::filesystem::exists(uri));

  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  launcher.Exit({"a", 1});
  Settle();
  ASSERT_EQ(controller->Get("jobs/a")->state(), v1::JOB_STATE_CANCELLED);
  clock.Advance(std::chrono::hours(2));
  Settle();
  EXPECT_TRUE(std::filesystem::exists(uri));  // its record names it
  ASSERT_TRUE(controller->Delete("jobs/a").ok());
  clock.Advance(std::chrono::minutes(11));
  Settle();
  EXPECT_FALSE(std::filesystem::exists(uri));
}

}  // namespace
}  // namespace temper
