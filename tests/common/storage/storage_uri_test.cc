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
  for (const char* uri : {"", "/", "name", "s3://bucket", "s3://bucket/?region=x", "file:///"}) {
    EXPECT_FALSE(SplitUri(uri).has_value()) << uri;
  }
}

}  // namespace
}  // namespace temper
