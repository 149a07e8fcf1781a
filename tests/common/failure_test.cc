// SPDX-License-Identifier: Apache-2.0
#include "common/failure.h"

#include <gtest/gtest.h>

#include <map>

namespace temper {
namespace {

TEST(FailureTest, AttachedCause_TravelsWithCopies) {
  const absl::Status status = WithCause(absl::InternalError("loss is nan"), FailureCause::kNumerics);
  const absl::Status copy = status;
  EXPECT_EQ(CauseOf(copy), FailureCause::kNumerics);
  EXPECT_EQ(copy.message(), "loss is nan");
}

TEST(FailureTest, WithoutACause_TheCodeDecides) {
  const std::map<absl::StatusCode, FailureCause> causes = {
      {absl::StatusCode::kInvalidArgument, FailureCause::kUserInput},
      {absl::StatusCode::kNotFound, FailureCause::kUserInput},
      {absl::StatusCode::kFailedPrecondition, FailureCause::kUserInput},
      {absl::StatusCode::kOutOfRange, FailureCause::kUserInput},
      {absl::StatusCode::kUnimplemented, FailureCause::kUserInput},
      {absl::StatusCode::kUnavailable, FailureCause::kStorage},
      {absl::StatusCode::kDataLoss, FailureCause::kStorage},
  };
  for (int code = 1; code <= 16; ++code) {
    const auto found = causes.find(static_cast<absl::StatusCode>(code));
    EXPECT_EQ(CauseOf(absl::Status(static_cast<absl::StatusCode>(code), "x")),
              found == causes.end() ? FailureCause::kInternal : found->second)
        << code;
  }
}

TEST(FailureTest, OkStatus_HasNoCause) {
  EXPECT_EQ(CauseOf(WithCause(absl::OkStatus(), FailureCause::kHang)), FailureCause::kNone);
}

TEST(FailureTest, Names_LeadBackToTheirCauses) {
  for (int i = 0; i <= static_cast<int>(FailureCause::kInternal); ++i) {
    const auto cause = static_cast<FailureCause>(i);
    EXPECT_EQ(FailureCauseFromName(FailureCauseName(cause)), cause);
  }
  EXPECT_EQ(FailureCauseFromName("rank_lost"), std::nullopt);
}

}  // namespace
}  // namespace temper
