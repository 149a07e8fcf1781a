// SPDX-License-Identifier: Apache-2.0
#include "server/web/job_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/clock.h"
#include "server/jobs/job_store.h"
#include "tests/common/scratch_directory.h"
#include "tests/server/jobs/fake_launcher.h"
#include "tests/server/jobs/valid_spec.h"

namespace temper {
namespace {

using testing::IsEmpty;

class JobStreamsTest : public testing::Test {
 protected:
  struct Message {
    std::string type = "message";
    std::string id;
    std::string job;
    int64_t sequence = 0;
  };

  void SetUp() override {
    auto opened = JobStore::Open(scratch_.path() / "data");
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    JobControllerOptions options;
    options.max_preflights = 0;
    controller_ = std::make_unique<JobController>(*store_, launcher_, clock_, options);
    ASSERT_TRUE(controller_->Recover().ok());
  }

  // A job that has ended, with its last sequence number.
  int64_t Ended(const std::string& id) {
    v1::CreateJobRequest request;
    *request.mutable_job()->mutable_spec() = ValidSpec();
    request.set_job_id(id);
    EXPECT_TRUE(controller_->Create(request).ok());
    const auto job = controller_->Cancel("jobs/" + id);
    EXPECT_EQ(job->state(), v1::JOB_STATE_CANCELLED);
    return job->last_sequence();
  }

  std::vector<Message> Stream(std::vector<JobPosition> jobs) const {
    std::stringstream text;
    StreamEvents(*controller_, feed_, std::move(jobs), [&](std::string_view bytes) {
      text << bytes;
      return true;
    });
    std::vector<Message> messages;
    Message message;
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with("event: ")) message.type = line.substr(7);
      if (line.starts_with("id: ")) message.id = line.substr(4);
      if (!line.starts_with("data: ")) continue;
      const auto data = nlohmann::json::parse(line.substr(6));
      if (data.contains("job")) {
        message.job = data["job"];
        message.sequence = std::stoll(std::string(data["event"]["sequence"]));
      }
      messages.push_back(std::exchange(message, {}));
    }
    return messages;
  }

  const ScratchDirectory scratch_;
  FakeClock clock_;
  FakeLauncher launcher_;
  EventFeed feed_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<JobController> controller_;
};

TEST_F(JobStreamsTest, SeveralJobs_ComeOnOneStreamThatGoesOnWhereItBroke) {
  const int64_t last_a = Ended("a");
  const int64_t last_b = Ended("b");
  ASSERT_GE(last_a, 2);
  const std::vector<Message> all = Stream({{"jobs/a", 0}, {"jobs/b", 0}});
  ASSERT_EQ(all.size(), static_cast<size_t>(last_a + last_b + 1));
  EXPECT_EQ(all.front().id, "1,0");
  EXPECT_EQ(all.front().job, "jobs/a");
  EXPECT_EQ(all.back().type, "end");
  const Message& newest = all[all.size() - 2];
  EXPECT_EQ(newest.id, std::to_string(last_a) + "," + std::to_string(last_b));
  EXPECT_EQ(newest.job, "jobs/b");

  const std::vector<Message> rest = Stream({{"jobs/a", last_a - 1}, {"jobs/b", last_b}});
  ASSERT_EQ(rest.size(), 2);
  EXPECT_EQ(rest[0].job, "jobs/a");
  EXPECT_EQ(rest[0].sequence, last_a);
  EXPECT_EQ(rest[1].type, "end");
}

TEST_F(JobStreamsTest, PositionOfAnotherLife_HasTheClientReload) {
  const int64_t last = Ended("a");
  const std::vector<Message> messages = Stream({{"jobs/a", last + 1}});
  ASSERT_EQ(messages.size(), 1);
  EXPECT_EQ(messages[0].type, "reload");
}

TEST_F(JobStreamsTest, ServerThatStops_ReadsNoMore) {
  Ended("a");
  feed_.Stop();
  EXPECT_THAT(Stream({{"jobs/a", 0}}), IsEmpty());
}

}  // namespace
}  // namespace temper
