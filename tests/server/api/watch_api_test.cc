// SPDX-License-Identifier: Apache-2.0
#include "server/api/watch_api.h"

#include <gmock/gmock.h>

#include <future>

#include "client/follow_job.h"
#include "tests/server/api/api_fixture.h"

namespace temper {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class WatchApiTest : public ApiTest {
 protected:
  struct Watched {
    absl::Status status;
    std::vector<int64_t> sequences;
    v1::JobState last_state = v1::JOB_STATE_UNSPECIFIED;
  };

  // Watches until the server ends the stream, or `enough` events came.
  static Watched Watch(const TrainingClient& client, const std::string& job, int64_t after = 0,
                       size_t enough = 100'000) {
    Watched watched;
    watched.status = client.WatchJob(job, after, [&](const v1::JobEvent& event) {
      watched.sequences.push_back(event.sequence());
      if (event.has_state()) watched.last_state = event.state().state();
      return watched.sequences.size() < enough;
    });
    return watched;
  }

  std::future<Watched> WatchInBackground(const std::string& job, int64_t after = 0) {
    return std::async(std::launch::async, [client = std::make_shared<TrainingClient>(Client()), job, after] {
      return Watch(*client, job, after);
    });
  }

  bool WatchersAre(int count) {
    return Eventually([&] { return hub->watchers() == count; });
  }
};

TEST_F(WatchApiTest, JobGoesOn_EventsComeAsTheyHappenUntilTheEnd) {
  Create("a");
  auto watched = WatchInBackground("jobs/a");
  ASSERT_TRUE(WatchersAre(1));
  Settle();  // STARTING
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  launcher.Exit({"a", 1});
  Settle();
  const Watched result = watched.get();
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.last_state, v1::JOB_STATE_CANCELLED);
  for (size_t i = 0; i < result.sequences.size(); ++i) EXPECT_EQ(result.sequences[i], static_cast<int64_t>(i) + 1);
  EXPECT_EQ(static_cast<int64_t>(result.sequences.size()), controller->Get("jobs/a")->last_sequence());
  EXPECT_TRUE(WatchersAre(0));
}

TEST_F(WatchApiTest, AfterSequence_LeavesOutWhatWasSeen) {
  Create("a");
  Settle();
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  launcher.Exit({"a", 1});
  Settle();
  const int64_t last = controller->Get("jobs/a")->last_sequence();
  EXPECT_EQ(Watch(Client(), "a", last - 1).sequences, std::vector<int64_t>{last});
  const Watched nothing = Watch(Client(), "a", last);
  EXPECT_TRUE(nothing.status.ok()) << nothing.status;
  EXPECT_TRUE(nothing.sequences.empty());
  EXPECT_TRUE(absl::IsOutOfRange(Watch(Client(), "a", last + 1).status));
  EXPECT_TRUE(absl::IsInvalidArgument(Watch(Client(), "a", -1).status));
}

TEST_F(WatchApiTest, ManyEvents_AllComeInOrder) {
  const int64_t attachment = Run("a");
  std::vector<v1::RankReport> reports;
  for (int i = 1; i <= 1000; ++i) reports.push_back(LogReport(i, "line"));
  Report(attachment, reports);
  const int64_t last = controller->Get("jobs/a")->last_sequence();
  const Watched watched = Watch(Client(), "a", 0, static_cast<size_t>(last));
  ASSERT_EQ(static_cast<int64_t>(watched.sequences.size()), last);
  for (int64_t i = 0; i < last; ++i) ASSERT_EQ(watched.sequences[static_cast<size_t>(i)], i + 1);
}

TEST_F(WatchApiTest, UnknownJob_IsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(Watch(Client(), "nobody").status));
  EXPECT_TRUE(WatchersAre(0));
}

TEST_F(WatchApiTest, ClientGoesAway_ItsPlaceIsFree) {
  Create("a");
  std::stop_source stop;
  auto watched = std::async(std::launch::async,
                            [&, client = Client({.stop = stop.get_token()})]() mutable { return Watch(client, "a"); });
  ASSERT_TRUE(WatchersAre(1));
  stop.request_stop();
  EXPECT_TRUE(absl::IsCancelled(watched.get().status));
  EXPECT_TRUE(WatchersAre(0));
  // Whoever comes next is served.
  EXPECT_THAT(Watch(Client(), "a", 0, 1).sequences, ElementsAre(1));
}

TEST_F(WatchApiTest, HundredWatchers_UnaryCallsAreAnsweredAndAllGetTheEvent) {
  Create("a");
  constexpr int kWatchers = 100;
  // One channel: what counts is the server's side.
  const TrainingClient client = Client({.deadline = absl::Seconds(5)});
  std::vector<std::future<Watched>> watchers;
  for (int i = 0; i < kWatchers; ++i) {
    watchers.push_back(std::async(std::launch::async, [&client] { return Watch(client, "a"); }));
  }
  ASSERT_TRUE(WatchersAre(kWatchers));
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(client.GetJob("a").ok());
  ASSERT_TRUE(client.CancelJob("a").ok());
  const int64_t last = controller->Get("jobs/a")->last_sequence();
  for (auto& watcher : watchers) {
    const Watched result = watcher.get();
    EXPECT_TRUE(result.status.ok()) << result.status;
    EXPECT_EQ(static_cast<int64_t>(result.sequences.size()), last);
  }
}

TEST_F(WatchApiTest, ServerStops_WatchersAreToldToComeBack) {
  Create("a");
  auto watched = WatchInBackground("a");
  ASSERT_TRUE(WatchersAre(1));
  hub->Stop();
  EXPECT_TRUE(absl::IsUnavailable(watched.get().status));
}

TEST_F(WatchApiTest, ServerRestarts_FollowerMissesAndRepeatsNothing) {
  const int64_t attachment = Run("a");
  Report(attachment, {StepReport(1, 1), StepReport(2, 2)});
  const int port = server->address().port;
  const int64_t before = controller->Get("jobs/a")->last_sequence();

  std::atomic<int64_t> seen = 0;
  std::vector<int64_t> sequences;
  int interruptions = 0;
  const TrainingClient client = Client();
  auto followed = std::async(std::launch::async, [&] {
    return FollowJob(
        client, "a", {},
        [&](const v1::JobEvent& event) {
          sequences.push_back(event.sequence());
          seen = event.sequence();
          return true;
        },
        [&](const absl::Status&) { ++interruptions; });
  });
  ASSERT_TRUE(Eventually([&] { return seen == before; }));
  Halt();
  Boot(port);
  launcher.Exit({"a", 1});
  Settle();
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  if (launcher.running.contains({"a", 2})) launcher.Exit({"a", 2});
  Settle();
  const absl::Status status = followed.get();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(interruptions, 1);
  ASSERT_EQ(static_cast<int64_t>(sequences.size()), controller->Get("jobs/a")->last_sequence());
  for (size_t i = 0; i < sequences.size(); ++i) EXPECT_EQ(sequences[i], static_cast<int64_t>(i) + 1);
}

class FewWatchersTest : public WatchApiTest {
 protected:
  FewWatchersTest() { rpc_options.watches.per_caller = 1; }
};

TEST_F(FewWatchersTest, OneTooMany_IsRefusedUntilAnotherIsGone) {
  Create("a");
  std::stop_source stop;
  auto first = std::async(std::launch::async,
                          [&, client = Client({.stop = stop.get_token()})]() mutable { return Watch(client, "a"); });
  ASSERT_TRUE(WatchersAre(1));
  const Watched second = Watch(Client(), "a");
  EXPECT_TRUE(absl::IsResourceExhausted(second.status)) << second.status;
  EXPECT_THAT(std::string(second.status.message()),
              HasSubstr("ipv4:127.0.0.1 has as many streams that follow jobs open as one caller may at a time, 1 "
                        "(temper-server --max-watches)"));
  stop.request_stop();
  first.get();
  EXPECT_TRUE(Eventually([&] { return Watch(Client(), "a", 0, 1).sequences.size() == 1; }));
}

class SlowWatcherTest : public WatchApiTest {
 protected:
  SlowWatcherTest() { watch_options.stall_limit = std::chrono::milliseconds(200); }

  // More than the flow control of a connection lets through at once.
  void Flood(int64_t attachment) {
    const std::string text(3000, 'x');
    int64_t sequence = 0;
    for (int batch = 0; batch < 40; ++batch) {
      std::vector<v1::RankReport> reports;
      for (int i = 0; i < 100; ++i) reports.push_back(LogReport(++sequence, text));
      Report(attachment, reports);
    }
  }

  std::unique_ptr<grpc::ClientReader<v1::JobEvent>> OpenWithoutReading(grpc::ClientContext& context,
                                                                       v1::TrainingService::Stub& stub) {
    v1::WatchJobRequest request;
    request.set_name("jobs/a");
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return stub.WatchJob(&context, request);
  }
};

TEST_F(SlowWatcherTest, ReaderThatNeverReads_IsCutOffAndOthersAreServed) {
  Flood(Run("a"));
  auto stub = v1::TrainingService::NewStub(MakeChannel(server->address().Text()));
  grpc::ClientContext context;
  auto reader = OpenWithoutReading(context, *stub);
  ASSERT_TRUE(WatchersAre(1));
  EXPECT_TRUE(Client().GetJob("a").ok());
  EXPECT_EQ(Watch(Client(), "a", 0, 4000).sequences.size(), 4000u);
  EXPECT_TRUE(WatchersAre(0));
  context.TryCancel();
  reader->Finish();
}

TEST_F(SlowWatcherTest, ReaderThatReadsAgain_IsToldWhyAndResumes) {
  watch_options.stall_limit = std::chrono::milliseconds(500);
  Halt();
  Boot();
  Flood(Run("a"));
  auto stub = v1::TrainingService::NewStub(MakeChannel(server->address().Text()));
  grpc::ClientContext context;
  auto reader = OpenWithoutReading(context, *stub);
  ASSERT_TRUE(WatchersAre(1));
  // The cut is not visible from here; what is: the time that the server gives.
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(800);
  Eventually([&] { return std::chrono::steady_clock::now() > until; });
  v1::JobEvent event;
  int64_t last = 0;
  while (reader->Read(&event)) {
    ASSERT_EQ(event.sequence(), last + 1);
    last = event.sequence();
  }
  const grpc::Status status = reader->Finish();
  ASSERT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("watch again after sequence " + std::to_string(last)));
  EXPECT_EQ(Watch(Client(), "a", last, 1).sequences, std::vector<int64_t>{last + 1});
}

}  // namespace
}  // namespace temper
