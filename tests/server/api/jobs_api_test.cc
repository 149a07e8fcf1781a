// SPDX-License-Identifier: Apache-2.0
#include "server/api/jobs_api.h"

#include <gmock/gmock.h>

#include "common/rpc/status.h"
#include "tests/server/api/api_fixture.h"

namespace temper {
namespace {

class JobsApiTest : public ApiTest {
 protected:
  static v1::CreateJobRequest Request() {
    v1::CreateJobRequest request;
    *request.mutable_job()->mutable_spec() = ValidSpec();
    return request;
  }
};

TEST_F(JobsApiTest, CreateGetListCancel_GoThrough) {
  const TrainingClient client = Client();
  v1::CreateJobRequest request = Request();
  request.set_job_id("a");
  const auto created = client.CreateJob(request);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->name(), "jobs/a");
  EXPECT_EQ(created->state(), v1::JOB_STATE_QUEUED);

  const auto got = client.GetJob("a");
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->spec().training().steps(), 100);

  const auto list = client.ListJobs({});
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->jobs_size(), 1);
  EXPECT_EQ(list->jobs(0).name(), "jobs/a");

  const auto cancelled = client.CancelJob("a");
  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  EXPECT_EQ(cancelled->state(), v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(CountEnded("CreateJob", absl::StatusCode::kOk), 1);
}

TEST_F(JobsApiTest, WrongField_ReachesTheClientWithItsPath) {
  v1::CreateJobRequest request = Request();
  request.mutable_job()->mutable_spec()->mutable_training()->set_learning_rate(7);
  const auto job = Client().CreateJob(request);
  EXPECT_TRUE(absl::IsInvalidArgument(job.status())) << job.status();
  const auto violations = FieldViolationsOf(job.status());
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "spec.training.learning_rate");
  EXPECT_EQ(CountEnded("CreateJob", absl::StatusCode::kInvalidArgument), 1);
}

TEST_F(JobsApiTest, UnknownJob_IsNotFoundWithAReason) {
  const auto job = Client().GetJob("nobody");
  EXPECT_TRUE(absl::IsNotFound(job.status())) << job.status();
  EXPECT_FALSE(ReasonOf(job.status()).empty());
  EXPECT_THAT(std::string(job.status().message()), testing::HasSubstr("jobs/nobody"));
}

}  // namespace
}  // namespace temper
