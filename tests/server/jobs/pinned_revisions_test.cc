// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/pinned_revisions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/rpc/status.h"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// On a cache as huggingface_hub leaves it; tests/common/storage/test_hub.py has the hub.
class PinnedRevisionsTest : public testing::Test {
 protected:
  PinnedRevisionsTest() {
    ::setenv("HF_HUB_CACHE", scratch_.path().c_str(), 1);
    ::setenv("HF_HUB_OFFLINE", "1", 1);
  }
  ~PinnedRevisionsTest() override {
    ::unsetenv("HF_HUB_CACHE");
    ::unsetenv("HF_HUB_OFFLINE");
  }

  void Cache(const std::string& folder, const std::string& revision, const std::string& commit) {
    const fs::path repository = scratch_.path() / folder;
    fs::create_directories(repository / "refs");
    fs::create_directories(repository / "snapshots" / commit);
    std::ofstream(repository / "refs" / revision) << commit;
  }

  const ScratchDirectory scratch_;
  const std::string commit_ = std::string(40, 'a');
};

TEST_F(PinnedRevisionsTest, PinRevisions_EveryFieldThatIsRead_GetsTheCommit) {
  Cache("models--org--name", "main", commit_);
  Cache("datasets--org--data", "v1", commit_);
  v1::JobSpec spec;
  spec.mutable_model()->set_uri("hf://org/name");
  spec.mutable_data()->add_sources()->set_uri("hf://datasets/org/data@v1/train/*.jsonl");
  spec.mutable_data()->add_sources()->set_uri("/data/more.jsonl");
  spec.mutable_validation()->set_uri("hf://datasets/org/data@v1/test.jsonl");
  spec.mutable_lora()->set_adapter("hf://org/name@main/adapter");
  spec.mutable_method()->mutable_distillation()->set_teacher("hf://org/name/teacher");
  spec.mutable_output()->set_uri("s3://bucket/out");
  spec.set_resume_from("gs://bucket/checkpoint");
  ASSERT_EQ(PinRevisions(spec), absl::OkStatus());
  EXPECT_EQ(spec.model().uri(), "hf://org/name@" + commit_);
  EXPECT_EQ(spec.data().sources(0).uri(), "hf://datasets/org/data@" + commit_ + "/train/*.jsonl");
  EXPECT_EQ(spec.data().sources(1).uri(), "/data/more.jsonl");
  EXPECT_EQ(spec.validation().uri(), "hf://datasets/org/data@" + commit_ + "/test.jsonl");
  EXPECT_EQ(spec.lora().adapter(), "hf://org/name@" + commit_ + "/adapter");
  EXPECT_EQ(spec.method().distillation().teacher(), "hf://org/name@" + commit_ + "/teacher");
  EXPECT_EQ(spec.output().uri(), "s3://bucket/out");
  EXPECT_EQ(spec.resume_from(), "gs://bucket/checkpoint");
}

TEST_F(PinnedRevisionsTest, PinRevisions_WhatNamesNothing_StaysAsItIs) {
  v1::JobSpec spec;
  spec.mutable_model()->set_uri("/models/a");
  spec.mutable_validation()->set_share(0.25);
  spec.mutable_lora()->set_rank(4);
  const v1::JobSpec before = spec;
  ASSERT_EQ(PinRevisions(spec), absl::OkStatus());
  EXPECT_EQ(spec.SerializeAsString(), before.SerializeAsString());
}

TEST_F(PinnedRevisionsTest, PinRevisions_WhatIsNowhere_IsAViolation) {
  Cache("models--org--name", "main", commit_);
  v1::JobSpec spec;
  spec.mutable_model()->set_uri("hf://org/name@v2");
  spec.mutable_data()->set_uri("hf://datasets/org/none/train.jsonl");
  const auto violations = FieldViolationsOf(PinRevisions(spec));
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "spec.model.uri");
  EXPECT_EQ(violations[1].field, "spec.data.uri");
  EXPECT_THAT(violations[1].description, HasSubstr("hf download"));
}

}  // namespace
}  // namespace temper
