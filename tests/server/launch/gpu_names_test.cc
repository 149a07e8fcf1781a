// SPDX-License-Identifier: Apache-2.0
#include "server/launch/gpu_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper {
namespace {

TEST(NameGpus, NothingSaysWhich_AreTheFirst) {
  EXPECT_THAT(*NameGpus(3, nullptr), testing::ElementsAre("0", "1", "2"));
  EXPECT_THAT(*NameGpus(0, nullptr), testing::IsEmpty());
}

TEST(NameGpus, SomeAreVisible_AreTheFirstOfThese) {
  EXPECT_THAT(*NameGpus(2, "7,GPU-5f3a,1"), testing::ElementsAre("7", "GPU-5f3a"));
  EXPECT_THAT(*NameGpus(0, ""), testing::IsEmpty());
}

TEST(NameGpus, FewerAreVisible_SaysSo) {
  const absl::Status status = NameGpus(3, "7,8").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "3 GPUs are asked for, but CUDA_VISIBLE_DEVICES=7,8 leaves 2");
  EXPECT_FALSE(NameGpus(1, "").ok());
  EXPECT_FALSE(NameGpus(1, "-1").ok());
  EXPECT_FALSE(NameGpus(2, "3,-1,4").ok());
}

TEST(NameGpus, OneIsNamedTwice_SaysSo) {
  EXPECT_EQ(NameGpus(2, "0,0").status().message(), "CUDA_VISIBLE_DEVICES=0,0 names a GPU twice");
}

}  // namespace
}  // namespace temper
