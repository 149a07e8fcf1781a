// SPDX-License-Identifier: Apache-2.0
#include "worker/model/parameter.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "worker/model/parameter_init.h"
#include "worker/ops/master_split.h"

namespace temper {
namespace {

using ops::JoinMaster;
using ops::MasterSplit;
using ops::SplitMaster;

using ::testing::ElementsAre;

float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }

TEST(MasterSplit, AllLowHalves_HighIsNearestEvenAndJoinIsExactButForOneTie) {
  // Even and odd, positive and negative, smallest, subnormal, about to overflow into the next exponent and to infinity.
  for (uint32_t high : {0x0000u, 0x0001u, 0x0040u, 0x3f80u, 0x3f81u, 0x3fffu, 0x7f7eu, 0x7f7fu, 0x8000u, 0x8001u,
                        0xbf80u, 0xbf81u, 0xff7fu}) {
    for (uint32_t low = 0; low < 0x10000u; ++low) {
      const float master = FromBits(high << 16 | low);
      const MasterSplit split = SplitMaster(master);
      ASSERT_EQ(split.high, c10::BFloat16(master).x) << high << " " << low;
      const bool unavoidable = low == 0x8000u && high % 2 == 0;
      ASSERT_EQ(Bits(JoinMaster(split)), Bits(master) - (unavoidable ? 1 : 0)) << high << " " << low;
    }
  }
}

TEST(MasterSplit, SplitOfJoin_IsStable) {
  // What a checkpoint stores as two halves must load and store again as the same two halves.
  for (uint32_t high : {0x3f80u, 0x3f81u, 0xbf80u}) {
    for (uint32_t low = 0; low < 0x10000u; ++low) {
      const MasterSplit once = SplitMaster(FromBits(high << 16 | low));
      const MasterSplit twice = SplitMaster(JoinMaster(once));
      ASSERT_EQ(once.high, twice.high);
      ASSERT_EQ(once.low, twice.low);
    }
  }
}

TEST(MasterSplit, InfinityAndNan_Stay) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(JoinMaster(SplitMaster(infinity)), infinity);
  EXPECT_EQ(JoinMaster(SplitMaster(-infinity)), -infinity);
  for (uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xffc00000u, 0xff80ffffu}) {
    EXPECT_TRUE(std::isnan(JoinMaster(SplitMaster(FromBits(nan))))) << nan;
  }
}

class ParameterTest : public ::testing::Test {
 protected:
  void Init(at::ScalarType dtype, bool trainable) {
    InitParameter(parameter_, "fused", {6, 4}, {.dtype = dtype, .trainable = trainable});
  }

  Parameter parameter_;
  const WeightView view_ = {"part", &parameter_, 2, 3};
  const at::Tensor value_ = at::randn({3, 4});
};

TEST_F(ParameterTest, Shape_IsThatOfThePart) {
  Init(at::kFloat, true);
  EXPECT_THAT(view_.shape(), ElementsAre(3, 4));
}

TEST_F(ParameterTest, StoreThenLoad_Trainable_IsExactAndTouchesThePartOnly) {
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Init(dtype, true);
    StoreMaster(view_, value_);
    EXPECT_TRUE(at::equal(LoadMaster(view_), value_));
    EXPECT_TRUE(at::equal(parameter_.weight.detach().narrow(0, 2, 3), value_.to(dtype)));
    const WeightView before = {"before", &parameter_, 0, 2};
    const WeightView after = {"after", &parameter_, 5, 1};
    EXPECT_TRUE(at::equal(LoadMaster(before), at::zeros({2, 4})));
    EXPECT_TRUE(at::equal(LoadMaster(after), at::zeros({1, 4})));
  }
}

TEST_F(ParameterTest, Store_FrozenBf16_RoundsToNearestEven) {
  Init(at::kBFloat16, false);
  StoreMaster(view_, value_);
  EXPECT_TRUE(at::equal(LoadMaster(view_), value_.to(at::kBFloat16).to(at::kFloat)));
}

TEST_F(ParameterTest, Store_Bf16Source_IsExact) {
  Init(at::kBFloat16, true);
  StoreMaster(view_, value_.to(at::kBFloat16));
  EXPECT_TRUE(at::equal(LoadMaster(view_), value_.to(at::kBFloat16).to(at::kFloat)));
  EXPECT_EQ(parameter_.low.abs().sum().item<int64_t>(), 0);
}

TEST(ParameterHalf, Store_EveryHalf_RoundsBackToItself) {
  Parameter parameter;
  InitParameter(parameter, "halves", {256, 248}, {.dtype = at::kBFloat16});  // all finite halves: 2 × 0x7c00
  at::Tensor halves = at::empty({256, 248}, at::kHalf);
  auto* bits = reinterpret_cast<uint16_t*>(halves.mutable_data_ptr<at::Half>());
  for (int i = 0; i < 2 * 0x7c00; ++i) bits[i] = static_cast<uint16_t>(i < 0x7c00 ? i : 0x8000 + (i - 0x7c00));
  const WeightView view = {"halves", &parameter, 0, 256};
  StoreMaster(view, halves);
  EXPECT_TRUE(at::equal(LoadMaster(view).to(at::kHalf).view(at::kShort), halves.view(at::kShort)));
}

TEST_F(ParameterTest, Store_AutogradLeaf_IsNotRecorded) {
  Init(at::kFloat, true);
  StoreMaster(view_, value_);
  EXPECT_TRUE(parameter_.weight.is_leaf());
  EXPECT_FALSE(LoadMaster(view_).requires_grad());
}

TEST_F(ParameterTest, Store_WrongShape_Throws) {
  Init(at::kFloat, true);
  EXPECT_THROW(StoreMaster(view_, at::zeros({4, 3})), c10::Error);
}

constexpr float kBeyondBf16 = 0x1p-12f;

// Rows of three; the slice begins and ends inside rows.
class ShardSliceTest : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  ShardSliceTest() {
    InitParameter(whole_, "whole", {5, 3}, {.dtype = GetParam(), .device = at::kMeta});
    slice_ = {.whole = &whole_, .offset = 3, .share = 6, .begin = 3, .part = {}};
    InitParameter(slice_.part, "whole", {6}, {.dtype = GetParam()});
    whole_.slice = &slice_;
  }
  at::Tensor Stored() { return LoadMaster({"", &slice_.part, 0, 6}); }

  Parameter whole_;
  ShardSlice slice_;
};

TEST_P(ShardSliceTest, OfRank_IsItsRunOfElements) {
  EXPECT_EQ(slice_.OfRank(0).row, 0);
  EXPECT_EQ(slice_.OfRank(0).rows, 3);
  EXPECT_EQ(slice_.OfRank(1).row, 3);
  EXPECT_EQ(slice_.OfRank(1).rows, 6);
  EXPECT_EQ(slice_.OfRank(2).row, 9);
  EXPECT_EQ(slice_.OfRank(2).rows, 6);
  EXPECT_EQ(slice_.OfRank(3).rows, 0);
}

TEST_P(ShardSliceTest, StoreMaster_SetsWhatIsHereOnly) {
  slice_ = {.whole = &whole_, .offset = 1, .share = 6, .begin = 5, .part = slice_.part};
  const at::Tensor values = (at::arange(15, at::kFloat) + kBeyondBf16).view({5, 3});
  const at::Tensor turned = values.t().contiguous().t();  // as a matrix that lies transposed on disk
  for (const at::Tensor& value : {values, turned}) {
    StoreMaster({"", &slice_.part, 0, 6}, at::zeros({6}));
    for (const auto& [row, rows] : std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {2, 1}, {3, 2}}) {
      StoreMaster({"rows", &whole_, row, rows}, value.narrow(0, row, rows));
    }
    EXPECT_TRUE(at::equal(Stored(), values.flatten().narrow(0, 5, 6)));
  }
  StoreMaster({"rows", &whole_, 2, 1}, at::zeros({1, 3}));
  const std::vector<float> expected = {5 + kBeyondBf16, 0, 0, 0, 9 + kBeyondBf16, 10 + kBeyondBf16};
  EXPECT_TRUE(at::equal(Stored(), at::tensor(expected)));
  EXPECT_TRUE(HasMaster({"rows", &whole_, 1, 1}));
  EXPECT_FALSE(HasMaster({"rows", &whole_, 0, 1}));
  EXPECT_FALSE(HasMaster({"rows", &whole_, 4, 1}));
  EXPECT_THROW(LoadMaster({"rows", &whole_, 2, 1}), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(, ShardSliceTest, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_F(ParameterTest, LoadedMaster_IsACopy) {
  Init(at::kFloat, true);
  StoreMaster(view_, value_);
  LoadMaster(view_).zero_();
  EXPECT_TRUE(at::equal(LoadMaster(view_), value_));
}

}  // namespace
}  // namespace temper
