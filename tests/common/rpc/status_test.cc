// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/failure.h"

namespace temper {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::Status ThroughTheWire(const absl::Status& status) { return FromGrpcStatus(ToGrpcStatus(status)); }

// As gRPC writes it into a header.
size_t PercentEncodedSize(const std::string& text) {
  size_t size = 0;
  for (const char c : text) size += c >= 0x20 && c < 0x7f && c != '%' ? 1 : 3;
  return size;
}

size_t HeaderBytes(const grpc::Status& status) {
  return PercentEncodedSize(status.error_message()) + status.error_details().size() * 4 / 3;
}

bool IsUtf8(const std::string& text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (i + length > text.size() || (lead & 0xc0) == 0x80) return false;
    for (size_t j = 1; j < length; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xc0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

TEST(StatusTest, EveryCode_SurvivesTheWire) {
  EXPECT_TRUE(ThroughTheWire(absl::OkStatus()).ok());
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "what was wrong");
    const absl::Status received = ThroughTheWire(status);
    EXPECT_EQ(received.code(), status.code());
    EXPECT_EQ(received.message(), "what was wrong");
    EXPECT_EQ(ReasonOf(received), absl::StatusCodeToString(status.code()));
  }
}

TEST(StatusTest, Reason_SurvivesTheWire) {
  const absl::Status status =
      ThroughTheWire(WithReason(absl::NotFoundError("there is no jobs/x"), "JOB_NOT_FOUND", {{"job", "jobs/x"}}));
  EXPECT_EQ(ReasonOf(status), "JOB_NOT_FOUND");
  EXPECT_THAT(ReasonMetadataOf(status), ElementsAre(testing::Pair("job", "jobs/x")));
}

TEST(StatusTest, Violations_SurviveTheWireAndAreInTheMessage) {
  const std::vector<FieldViolation> violations = {{"spec.model.uri", "is required"}, {"spec.priority", "is 1001"}};
  const absl::Status status = ThroughTheWire(InvalidFields(violations));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "spec.model.uri: is required; spec.priority: is 1001");
  EXPECT_EQ(FieldViolationsOf(status), violations);
}

TEST(StatusTest, PayloadsOfOurOwn_StayAtHome) {
  const absl::Status status = WithCause(absl::UnavailableError("disk full"), FailureCause::kStorage);
  EXPECT_THAT(ToGrpcStatus(status).error_details(), testing::Not(HasSubstr("temper/failure-cause")));
}

TEST(StatusTest, StatusOfAnotherServer_IsReadWithoutDetails) {
  const absl::Status status =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::INTERNAL, "from a proxy", "not a proto\xff"));
  EXPECT_EQ(status.message(), "from a proxy");
  EXPECT_EQ(ReasonOf(status), "");
  EXPECT_TRUE(FieldViolationsOf(status).empty());
}

TEST(StatusTest, HugeMessage_IsCutBetweenCharacters) {
  for (const std::string& unit :
       {std::string("x"), std::string("ä"), std::string("€"), std::string("😀"), std::string("%")}) {
    std::string message;
    while (message.size() < 50'000) message += unit;
    const grpc::Status status = ToGrpcStatus(absl::InternalError(message));
    EXPECT_LE(HeaderBytes(status), 7'600u);
    EXPECT_GE(PercentEncodedSize(status.error_message()), 1'400u);
    EXPECT_TRUE(IsUtf8(status.error_message()));
    EXPECT_TRUE(status.error_message().ends_with("..."));
  }
}

TEST(StatusTest, ManyLongViolations_FitAndSayHowManyWereLeftOut) {
  for (const size_t length : {10u, 100u, 3000u}) {
    std::vector<FieldViolation> violations;
    for (int i = 0; i < 500; ++i) violations.push_back({"spec.f" + std::to_string(i), std::string(length, 'x')});
    const grpc::Status status = ToGrpcStatus(InvalidFields(violations));
    EXPECT_LE(HeaderBytes(status), 7'600u) << length;
    EXPECT_LE(status.error_details().size(), 6'000u) << length;
    const auto received = FieldViolationsOf(FromGrpcStatus(status));
    ASSERT_GE(received.size(), 2u);
    EXPECT_EQ(received.back().field, "");
    EXPECT_EQ(received.back().description, "and " + std::to_string(500 - (received.size() - 1)) + " more");
  }
}

}  // namespace
}  // namespace temper
