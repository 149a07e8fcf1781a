// SPDX-License-Identifier: Apache-2.0
#include "client/training_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "client/channel.h"
#include "tests/client/fake_training_server.h"

namespace temper {
namespace {

TEST(JobNames, IdAndName_AreTheSame) {
  EXPECT_EQ(ToJobName("a-1"), "jobs/a-1");
  EXPECT_EQ(ToJobName("jobs/a-1"), "jobs/a-1");
  EXPECT_EQ(ToJobId("jobs/a-1"), "a-1");
  EXPECT_EQ(ToJobId("a-1"), "a-1");
}

TEST(NewRequestId, IsAVersion4Uuid) {
  const std::string id = NewRequestId();
  EXPECT_THAT(id, ::testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_NE(id, NewRequestId());
}

TEST(TrainingClient, ServerUnavailableForAMoment_CallIsRepeatedWithTheSameRequestId) {
  FakeTrainingServer server;
  std::vector<std::string> request_ids;
  server.create = [&](const v1::CreateJobRequest& request, grpc::ServerContext&, v1::Job& job) {
    request_ids.push_back(request.request_id());
    job.set_name("jobs/a");
    return request_ids.size() < 3 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "busy") : grpc::Status::OK;
  };
  const auto job = server.Client().CreateJob({});
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->name(), "jobs/a");
  ASSERT_EQ(request_ids.size(), 3u);
  EXPECT_FALSE(request_ids[0].empty());
  EXPECT_THAT(request_ids, ::testing::Each(request_ids[0]));
}

TEST(TrainingClient, Token_IsSentAsBearer) {
  FakeTrainingServer server;
  std::string authorization;
  server.create = [&](const v1::CreateJobRequest&, grpc::ServerContext& context, v1::Job&) {
    const auto found = context.client_metadata().find("authorization");
    if (found != context.client_metadata().end()) authorization = {found->second.data(), found->second.size()};
    return grpc::Status::OK;
  };
  ASSERT_TRUE(server.Client().CreateJob({}).ok());
  EXPECT_EQ(authorization, "");
  ASSERT_TRUE(server.Client({.token = "secret"}).CreateJob({}).ok());
  EXPECT_EQ(authorization, "Bearer secret");
}

TEST(TrainingClient, NobodyListens_IsUnavailable) {
  FakeTrainingServer server;
  const TrainingClient client = server.Client();
  server.Stop();
  EXPECT_TRUE(absl::IsUnavailable(client.GetJob("a").status())) << client.GetJob("a").status();
}

TEST(TrainingClient, ServerHangs_DeadlineIsExceeded) {
  FakeTrainingServer server;
  server.create = [](const v1::CreateJobRequest&, grpc::ServerContext& context, v1::Job&) {
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  };
  const auto job = server.Client({.deadline = absl::Milliseconds(100)}).CreateJob({});
  EXPECT_TRUE(absl::IsDeadlineExceeded(job.status())) << job.status();
}

TEST(TrainingClient, StopRequested_EndsARunningCall) {
  FakeTrainingServer server;
  std::stop_source stop;
  server.watch = [&](const v1::WatchJobRequest&, grpc::ServerWriter<v1::JobEvent>&, grpc::ServerContext& context) {
    stop.request_stop();
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  };
  const auto status = server.Client({.stop = stop.get_token()}).WatchJob("a", 0, [](const auto&) { return true; });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
}

}  // namespace
}  // namespace temper
