// SPDX-License-Identifier: Apache-2.0
#include "worker/train/spike_detector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Losses of 1.9 and 2.1 in turn, norms of 1: mean 2, deviation 0.1.
SpikeDetector After(size_t steps) {
  SpikeDetector detector(6);
  for (size_t i = 0; i < steps; ++i) detector.Add(i % 2 == 0 ? 1.9 : 2.1, 1);
  return detector;
}

TEST(SpikeDetector, Check_FarAboveTheMean_IsASpike) {
  const SpikeDetector detector = After(64);
  EXPECT_THAT(detector.Check(2.59, 1), IsEmpty());
  EXPECT_THAT(detector.Check(2.61, 1), HasSubstr("a loss of 2.61, 6.1 standard deviations above 2, the mean of 64"));
  EXPECT_THAT(detector.Check(0.1, 1), IsEmpty());
}

TEST(SpikeDetector, Check_NormThatNeverMoved_NeedsMoreThanNoise) {
  const SpikeDetector detector = After(64);
  EXPECT_THAT(detector.Check(2, 1.05), IsEmpty());
  EXPECT_THAT(detector.Check(2, 1.07), HasSubstr("a gradient norm of 1.07"));
}

TEST(SpikeDetector, Check_FewSteps_IsNoSpike) { EXPECT_THAT(After(31).Check(1000, 1000), IsEmpty()); }

TEST(SpikeDetector, Add_ForgetsWhatIsOld_AndGoesOnFromWhatWasStored) {
  SpikeDetector detector = After(64);
  for (int i = 0; i < 128; ++i) detector.Add(10, 1);
  EXPECT_EQ(detector.losses().size(), 128);
  EXPECT_THAT(detector.Check(10.5, 1), IsEmpty());
  const SpikeDetector resumed(6, detector.losses(), detector.norms());
  EXPECT_EQ(resumed.Check(11, 1), detector.Check(11, 1));
  EXPECT_THAT(resumed.Check(11, 1), HasSubstr("loss of 11"));
}

}  // namespace
}  // namespace temper
