// SPDX-License-Identifier: Apache-2.0
#include "worker/data/data_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/data_file.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(FindDataFiles, File_IsItself_EvenWithStarsInItsName) {
  const DataFile file("", "a*.jsonl");
  file.Add("ab.jsonl", "");
  EXPECT_THAT(*FindDataFiles(file.uri()), ElementsAre(file.uri()));
  EXPECT_THAT(*FindDataFiles("/nowhere/x.jsonl"), ElementsAre("/nowhere/x.jsonl"));
}

TEST(FindDataFiles, Directory_GivesItsDataSorted) {
  const DataFile file("", "b.jsonl");
  for (const char* name : {"c.jsonl.zst", "a.jsonl.gz", "README.md", "d.json"}) file.Add(name, "");
  std::filesystem::create_directory(file.directory() + "/deeper");
  file.Add("deeper/z.jsonl", "");
  const std::string at = file.directory() + "/";
  EXPECT_THAT(*FindDataFiles(file.directory()), ElementsAre(at + "a.jsonl.gz", at + "b.jsonl", at + "c.jsonl.zst"));
  EXPECT_THAT(*FindDataFiles(at), ElementsAre(at + "a.jsonl.gz", at + "b.jsonl", at + "c.jsonl.zst"));
  EXPECT_THAT(FindDataFiles("file://" + at)->front(), HasSubstr("a.jsonl.gz"));
}

TEST(FindDataFiles, Pattern_GivesWhatMatchesSorted) {
  const DataFile file("", "part-2.txt");
  for (const char* name : {"part-1.txt", "part-10.txt", "other.txt", ".part-0.txt"}) file.Add(name, "");
  const std::string at = file.directory() + "/";
  EXPECT_THAT(*FindDataFiles(at + "part-?.txt"), ElementsAre(at + "part-1.txt", at + "part-2.txt"));
  EXPECT_THAT(*FindDataFiles(at + "part-[13]*"), ElementsAre(at + "part-1.txt", at + "part-10.txt"));
}

TEST(FindDataFiles, Nothing_IsNotFound) {
  const DataFile file("", "data.txt");
  const absl::Status directory = FindDataFiles(file.directory()).status();
  EXPECT_EQ(directory.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(directory.message()), HasSubstr("has no data: no file right in it ends in .jsonl"));
  const absl::Status pattern = FindDataFiles(file.directory() + "/*.jsonl").status();
  EXPECT_EQ(pattern.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(pattern.message()), HasSubstr("no file matches " + file.directory() + "/*.jsonl"));
}

TEST(FindDataFiles, NoFileName_IsInvalid) {
  EXPECT_EQ(FindDataFiles("data.jsonl").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FindDataFiles("/").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace temper
