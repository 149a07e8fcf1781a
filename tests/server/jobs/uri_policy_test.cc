// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/uri_policy.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class UriPolicyTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(data / "models");
    fs::create_directories(scratch.path() / "secret");
    fs::create_directories(scratch.path() / "data-other");
  }

  // Whether a job may name it, when only what is below `data` and s3://bucket/team is allowed.
  bool Allowed(const std::string& uri) {
    const auto policy =
        UriPolicy::Parse({"file://" + data.string() + "/**", "s3://bucket/team/**", "/exact/place", "gs://bucket/**",
                          "abfs://c@account/a/**", "hf://org/**", "hf://datasets/o/d"},
                         scratch.path() / "uploads");
    EXPECT_TRUE(policy.ok()) << policy.status();
    v1::JobSpec spec;
    spec.mutable_model()->set_uri(uri);
    return policy->Check(spec).ok();
  }

  ScratchDirectory scratch;
  const fs::path data = scratch.path() / "data";
};

TEST_F(UriPolicyTest, Check_WhatIsBelow_IsAllowedInEachSpelling) {
  for (const std::string& uri :
       {data.string(), data.string() + "/", data.string() + "/models", "file://" + data.string() + "/models/new/deep",
        "file://" + data.string() + "/mod%65ls", data.string() + "/part-*.jsonl", std::string("/exact/place"),
        (scratch.path() / "uploads/a/train.jsonl").string(), std::string("s3://bucket/team"),
        std::string("s3://bucket/team/x/y"), std::string("gs://bucket/x"), std::string("abfss://c@account/a/b"),
        std::string("hf://org/name@v1/sub"), std::string("hf://datasets/o/d@main")}) {
    EXPECT_TRUE(Allowed(uri)) << uri;
  }
}

TEST_F(UriPolicyTest, Check_AnywhereElse_IsNot) {
  for (const std::string& uri : {scratch.path().string(),
                                 data.string() + "-other",
                                 data.string() + "/../secret",
                                 data.string() + "/models/../../secret",
                                 "file://" + data.string() + "/%2e%2e/secret",
                                 "file://" + data.string() + "/%2E./secret",
                                 "file://" + data.string() + "/models%2f..%2f..%2fsecret",
                                 data.string() + "/./models",
                                 std::string("/etc/passwd"),
                                 std::string("/exact/place/below"),
                                 std::string("/exact"),
                                 std::string("s3://bucket"),
                                 std::string("s3://bucket/teams"),
                                 std::string("s3://other/team/x"),
                                 std::string("s3://bucket/team/../x"),
                                 std::string("s3://bucket/team/x?endpoint=http://elsewhere:9000"),
                                 std::string("gs://other/x"),
                                 std::string("abfs://c@other/a/b"),
                                 std::string("abfs://c/a/b"),
                                 std::string("s3://org/name"),
                                 std::string("hf://other/name@org"),
                                 std::string("hf://datasets/org/name"),
                                 std::string("hf://datasets/o/d/x"),
                                 std::string("hf://datasets/o/d/@x")}) {
    EXPECT_FALSE(Allowed(uri)) << uri;
  }
}

TEST_F(UriPolicyTest, Check_Uploads_AreToBeReadNotWritten) {
  const std::string uploads = (scratch.path() / "uploads").string();
  const auto policy = UriPolicy::Parse({data.string() + "/**"}, uploads);
  ASSERT_TRUE(policy.ok()) << policy.status();
  v1::JobSpec spec;
  spec.mutable_data()->set_uri(uploads + "/a/train.jsonl");
  spec.mutable_output()->set_uri(data.string());
  EXPECT_TRUE(policy->Check(spec).ok());
  spec.mutable_output()->set_uri(uploads + "/a");
  const auto violations = FieldViolationsOf(policy->Check(spec));
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "spec.output.uri");
  const auto wanted = UriPolicy::Parse({scratch.path().string() + "/**"}, uploads);
  ASSERT_TRUE(wanted.ok()) << wanted.status();
  EXPECT_TRUE(wanted->Check(spec).ok());
}

TEST_F(UriPolicyTest, Check_SymbolicLinks_AreJudgedByWhereTheyLead) {
  fs::create_directory_symlink(scratch.path() / "secret", data / "out");
  fs::create_directory_symlink(data / "models", scratch.path() / "in");
  fs::create_symlink(scratch.path() / "secret/file", data / "file.jsonl");
  EXPECT_FALSE(Allowed((data / "out").string()));
  EXPECT_FALSE(Allowed((data / "out/new").string()));
  EXPECT_FALSE(Allowed((data / "file.jsonl").string()));
  EXPECT_TRUE(Allowed((scratch.path() / "in").string()));
}

TEST_F(UriPolicyTest, Check_EveryFieldThatNamesAPlace) {
  // By the schema: whoever adds a field of this kind is told here to add it to UrisOf.
  std::set<std::string> named;
  const std::function<void(const google::protobuf::Descriptor*, const std::string&)> walk =
      [&](const google::protobuf::Descriptor* message, const std::string& path) {
        for (int i = 0; i < message->field_count(); ++i) {
          const google::protobuf::FieldDescriptor* field = message->field(i);
          const std::string here = path + "." + field->name() + (field->is_repeated() ? "[0]" : "");
          if (field->message_type() != nullptr && !field->is_map()) {
            walk(field->message_type(), here);
          } else if (field->name() == "uri" || field->name().ends_with("_uri") || field->name() == "adapter" ||
                     field->name() == "teacher" || field->name() == "resume_from") {
            named.insert(here);
          }
        }
      };
  walk(v1::JobSpec::descriptor(), "spec");

  v1::JobSpec spec;
  spec.mutable_model()->set_uri("/no/1");
  spec.mutable_data()->set_uri("/no/2");
  spec.mutable_data()->add_sources()->set_uri("/no/3");
  spec.mutable_validation()->set_uri("/no/4");
  spec.mutable_lora()->set_adapter("/no/5");
  spec.mutable_output()->set_uri("/no/6");
  spec.set_resume_from("/no/7");
  spec.mutable_method()->mutable_distillation()->set_teacher("/no/8");
  const auto policy = UriPolicy::Parse({"/data/**"}, "/uploads");
  ASSERT_TRUE(policy.ok()) << policy.status();
  std::set<std::string> refused;
  for (const FieldViolation& violation : FieldViolationsOf(policy->Check(spec))) refused.insert(violation.field);
  EXPECT_EQ(refused, named);
}

TEST_F(UriPolicyTest, Parse_NoPatterns_AllowEverything) {
  v1::JobSpec spec;
  spec.mutable_model()->set_uri("/etc");
  EXPECT_TRUE(UriPolicy::Parse({}, "/uploads")->Check(spec).ok());
  EXPECT_TRUE(UriPolicy::Parse({"/**"}, "/uploads")->Check(spec).ok());
  EXPECT_TRUE(UriPolicy::Parse({"file:///**"}, "/uploads")->Check(spec).ok());
}

TEST_F(UriPolicyTest, Parse_NoPattern_SaysWhy) {
  for (const char* pattern : {"", "data/**", "s3://", "s3:///**", "ftp://bucket/**", "/data/../**", "file://host/x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(UriPolicy::Parse({pattern}, "/uploads").status())) << pattern;
  }
  EXPECT_THAT(std::string(UriPolicy::Parse({"/a*/**"}, "/uploads").status().message()), HasSubstr("at the end alone"));
}

}  // namespace
}  // namespace temper
