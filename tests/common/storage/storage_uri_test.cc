// SPDX-License-Identifier: Apache-2.0
#include "common/storage/storage_uri.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

TEST(StorageUri, UriBelow_KeepsParametersAtTheEnd) {
  EXPECT_EQ(UriBelow("/a", "b/c"), "/a/b/c");
  EXPECT_EQ(UriBelow("/", "b"), "/b");
  EXPECT_EQ(UriBelow("file:///a?b", "c"), "file:///a?b/c");
  EXPECT_EQ(UriBelow("s3://bucket", "a"), "s3://bucket/a");
  EXPECT_EQ(UriBelow("s3://bucket/a?region=x", "b"), "s3://bucket/a/b?region=x");
  EXPECT_EQ(UriBelow("gs://bucket?endpoint=x", "b"), "gs://bucket/b?endpoint=x");
  EXPECT_EQ(UriBelow("abfs://c@account/a?endpoint=x", "b"), "abfs://c@account/a/b?endpoint=x");
  EXPECT_EQ(UriBelow("hf://org/name@main", "b"), "hf://org/name@main/b");
}

TEST(StorageUri, SplitUri_IsTheInverse) {
  const auto expect = [](std::string_view uri, std::string_view directory, std::string_view name) {
    const auto parts = SplitUri(uri);
    ASSERT_TRUE(parts.has_value()) << uri;
    EXPECT_EQ(parts->directory, directory);
    EXPECT_EQ(parts->name, name);
  };
  expect("/a/b", "/a", "b");
  expect("/a", "/", "a");
  expect("/a/b/", "/a", "b");
  expect("file:///a", "file:///", "a");
  expect("file:///a/b", "file:///a", "b");
  expect("s3://bucket/b?region=x", "s3://bucket?region=x", "b");
  expect("s3://bucket/a/b?endpoint=http://h:1", "s3://bucket/a?endpoint=http://h:1", "b");
  expect("gs://bucket/b?endpoint=x", "gs://bucket?endpoint=x", "b");
  expect("abfss://c@account.dfs.core.windows.net/b", "abfss://c@account.dfs.core.windows.net", "b");
  expect("hf://org/name@main/b", "hf://org/name@main", "b");
  expect("hf://datasets/org/name/a/b", "hf://datasets/org/name/a", "b");
  for (const char* uri :
       {"", "/", "name", "s3://bucket", "s3://bucket/?region=x", "file:///", "gs://bucket", "abfs://c@account",
        "hf://org", "hf://org/name", "hf://datasets/org", "hf://datasets/org/name@v1"}) {
    EXPECT_FALSE(SplitUri(uri).has_value()) << uri;
  }
}

TEST(StorageUri, SchemeOf_KnowsAll) {
  EXPECT_EQ(SchemeOf("/a"), StorageScheme::kLocal);
  EXPECT_EQ(SchemeOf("file:///a"), StorageScheme::kLocal);
  EXPECT_EQ(SchemeOf("abfs://c@a/b"), StorageScheme::kAzure);
  EXPECT_EQ(SchemeOf("abfss://c@a/b"), StorageScheme::kAzure);
  EXPECT_EQ(SchemeOf("hf://a/b"), StorageScheme::kHub);
  EXPECT_EQ(SchemeOf("ftp://a/b"), std::nullopt);
}

TEST(StorageUri, ReadParameters_OfAnotherScheme_AreRefusedWithoutTheirValues) {
  EXPECT_EQ((*ReadParameters("s3://b?endpoint=http%3A%2F%2Fh&region=x"))[0].value, "http://h");
  for (const char* uri : {"gs://b?region=hunter2", "abfs://c@a/b?sig=hunter2", "hf://a/b?endpoint=hunter2"}) {
    const absl::Status status = ReadParameters(uri).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << uri;
    EXPECT_EQ(std::string(status.message()).find("hunter2"), std::string::npos) << status;
  }
}

TEST(StorageUri, HasUserInformation_AContainerIsNone) {
  for (const char* uri : {"s3://key:secret@b/x", "gs://key@b", "hf://token@org/name", "abfs://c:key@account/x"}) {
    EXPECT_TRUE(HasUserInformation(uri)) << uri;
  }
  for (const char* uri : {"abfs://c@account/x", "hf://org/name@main", "s3://b/a@b", "/a@b", "file:///a@b"}) {
    EXPECT_FALSE(HasUserInformation(uri)) << uri;
  }
}

TEST(StorageUri, ParseHubUri_FindsRepositoryRevisionAndPath) {
  const HubPlace model = *ParseHubUri("hf://org/na.me-1");
  EXPECT_EQ(model.Uri(), "hf://org/na.me-1@main");
  EXPECT_FALSE(model.pinned());
  const HubPlace data = *ParseHubUri("hf://datasets/org/name@refs%2Fpr%2F1/a/b@c.jsonl");
  EXPECT_TRUE(data.dataset);
  EXPECT_EQ(data.repository, "org/name");
  EXPECT_EQ(data.revision, "refs/pr/1");
  EXPECT_EQ(data.path, "a/b@c.jsonl");
  EXPECT_EQ(data.Uri(), "hf://datasets/org/name@refs%2Fpr%2F1/a/b@c.jsonl");
  EXPECT_TRUE(ParseHubUri("hf://org/name@" + std::string(40, 'a'))->pinned());
  for (const char* uri : {"hf://", "hf://name", "hf://org/@main", "hf://org/name@", "hf://org//name", "hf://../name",
                          "hf://org/..@main", "hf://org/.@main", "hf://datasets/org/..@main/x",
                          "hf://org/name@..%2F..%2Fetc", "hf://org/na me", "hf://org/name?revision=x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseHubUri(uri).status())) << uri;
  }
}

}  // namespace
}  // namespace temper
