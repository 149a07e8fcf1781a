// SPDX-License-Identifier: Apache-2.0
#include "client/follow_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/client/fake_training_server.h"

namespace temper {
namespace {

using ::testing::ElementsAre;

v1::JobEvent Event(int64_t sequence) {
  v1::JobEvent event;
  event.set_sequence(sequence);
  event.mutable_log()->set_text("line");
  return event;
}

struct Followed {
  absl::Status status;
  std::vector<int64_t> sequences;
  int interruptions = 0;
};

Followed Follow(const TrainingClient& client, FollowOptions options = {}, size_t enough = 1000) {
  Followed followed;
  followed.status = FollowJob(
      client, "a", options,
      [&](const v1::JobEvent& event) {
        followed.sequences.push_back(event.sequence());
        return followed.sequences.size() < enough;
      },
      [&](const absl::Status&) { ++followed.interruptions; });
  return followed;
}

TEST(FollowJob, StreamBreaks_GoesOnAfterTheLastEventSeen) {
  FakeTrainingServer server;
  std::vector<int64_t> resumed_after;
  server.watch = [&](const v1::WatchJobRequest& request, auto& writer, grpc::ServerContext&) {
    resumed_after.push_back(request.after_sequence());
    for (int64_t i = request.after_sequence() + 1; i <= 7; ++i) {
      writer.Write(Event(i));
      if (i == 2) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting");
      if (i == 5) return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too slow");
      if (i == 6) return grpc::Status::CANCELLED;  // as a server that shuts down
    }
    return grpc::Status::OK;
  };
  const Followed followed = Follow(server.Client());
  EXPECT_TRUE(followed.status.ok()) << followed.status;
  EXPECT_THAT(followed.sequences, ElementsAre(1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(resumed_after, ElementsAre(0, 2, 5, 6));
  EXPECT_EQ(followed.interruptions, 3);
}

TEST(FollowJob, ServerProcessRestarts_GoesOn) {
  FakeTrainingServer server;
  bool first = true;
  std::thread restarter;
  server.watch = [&](const v1::WatchJobRequest& request, auto& writer, grpc::ServerContext& context) {
    for (int64_t i = request.after_sequence() + 1; i <= 4; ++i) {
      writer.Write(Event(i));
      if (first && i == 2) {
        first = false;
        restarter = std::thread([&] {
          server.Stop();
          server.Restart();
        });
        while (!context.IsCancelled()) std::this_thread::yield();
        return grpc::Status::CANCELLED;
      }
    }
    return grpc::Status::OK;
  };
  const Followed followed = Follow(server.Client());
  restarter.join();
  EXPECT_TRUE(followed.status.ok()) << followed.status;
  EXPECT_THAT(followed.sequences, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(followed.interruptions, 1);
}

TEST(FollowJob, NeverReached_FailsAtOnce) {
  FakeTrainingServer server;
  const TrainingClient client = server.Client();
  server.Stop();
  const Followed followed = Follow(client);
  EXPECT_TRUE(absl::IsUnavailable(followed.status)) << followed.status;
  EXPECT_EQ(followed.interruptions, 0);
}

TEST(FollowJob, PatienceIsOver_ReturnsWhatWasWrong) {
  FakeTrainingServer server;
  server.watch = [&](const v1::WatchJobRequest& request, auto& writer, grpc::ServerContext&) {
    if (request.after_sequence() == 0) writer.Write(Event(1));
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  };
  const Followed followed = Follow(server.Client(), {.patience = absl::ZeroDuration()});
  EXPECT_TRUE(absl::IsUnavailable(followed.status)) << followed.status;
  EXPECT_THAT(followed.sequences, ElementsAre(1));
}

TEST(FollowJob, OtherErrors_AreNotRetried) {
  FakeTrainingServer server;
  int calls = 0;
  server.watch = [&](const v1::WatchJobRequest&, auto& writer, grpc::ServerContext&) {
    ++calls;
    writer.Write(Event(1));
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such job");
  };
  EXPECT_TRUE(absl::IsNotFound(Follow(server.Client()).status));
  EXPECT_EQ(calls, 1);
}

TEST(FollowJob, GapInTheSequence_IsDataLoss) {
  FakeTrainingServer server;
  server.watch = [&](const v1::WatchJobRequest&, auto& writer, grpc::ServerContext&) {
    writer.Write(Event(1));
    writer.Write(Event(3));
    return grpc::Status::OK;
  };
  const Followed followed = Follow(server.Client());
  EXPECT_TRUE(absl::IsDataLoss(followed.status)) << followed.status;
  EXPECT_THAT(followed.sequences, ElementsAre(1));
}

TEST(FollowJob, SinkHasEnough_LeavesTheStream) {
  FakeTrainingServer server;
  server.watch = [&](const v1::WatchJobRequest&, auto& writer, grpc::ServerContext& context) {
    for (int64_t i = 1; !context.IsCancelled(); ++i) writer.Write(Event(i));
    return grpc::Status::CANCELLED;
  };
  const Followed followed = Follow(server.Client(), {}, 3);
  EXPECT_TRUE(followed.status.ok()) << followed.status;
  EXPECT_THAT(followed.sequences, ElementsAre(1, 2, 3));
}

}  // namespace
}  // namespace temper
