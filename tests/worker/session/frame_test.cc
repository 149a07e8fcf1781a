// SPDX-License-Identifier: Apache-2.0
#include "worker/session/frame.h"

#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "temper/v1/worker_service.pb.h"

namespace temper {
namespace {

v1::Stop StopBecause(const std::string& reason) {
  v1::Stop stop;
  stop.set_reason(reason);
  return stop;
}

class FrameTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds_), 0); }
  void TearDown() override {
    for (int fd : fds_) {
      if (fd >= 0) close(fd);
    }
  }

  std::string ReadAvailable() {
    std::string bytes(1 << 20, '\0');
    bytes.resize(static_cast<size_t>(recv(fds_[1], bytes.data(), bytes.size(), MSG_DONTWAIT)));
    return bytes;
  }

  int fds_[2] = {-1, -1};
};

TEST_F(FrameTest, WriteMessage_TwoMessages_DecodeByteByByte) {
  ASSERT_TRUE(WriteMessage(fds_[0], StopBecause("one")).ok());
  ASSERT_TRUE(WriteMessage(fds_[0], StopBecause(std::string(70'000, 'x'))).ok());
  FrameDecoder decoder;
  std::vector<std::string> reasons;
  for (char byte : ReadAvailable()) {
    decoder.Append({&byte, 1});
    std::string payload;
    const auto whole = decoder.Next(&payload);
    ASSERT_TRUE(whole.ok());
    if (!*whole) continue;
    v1::Stop stop;
    ASSERT_TRUE(stop.ParseFromString(payload));
    reasons.push_back(stop.reason());
  }
  EXPECT_THAT(reasons, testing::ElementsAre("one", std::string(70'000, 'x')));
  EXPECT_FALSE(decoder.HasPartialFrame());
}

TEST_F(FrameTest, WriteMessage_EmptyMessage_IsAFrameOfItsOwn) {
  ASSERT_TRUE(WriteMessage(fds_[0], v1::Stop()).ok());
  EXPECT_EQ(ReadAvailable(), std::string(4, '\0'));
}

TEST_F(FrameTest, WriteMessage_OtherEndClosed_IsUnavailable) {
  close(fds_[1]);
  fds_[1] = -1;
  EXPECT_EQ(WriteMessage(fds_[0], StopBecause("x")).code(), absl::StatusCode::kUnavailable);
}

TEST(FrameDecoderTest, Next_LengthOverLimit_IsDataLoss) {
  FrameDecoder decoder;
  decoder.Append("GET / HTTP/1.1\r\n");
  std::string payload;
  EXPECT_EQ(decoder.Next(&payload).status().code(), absl::StatusCode::kDataLoss);
}

TEST(FrameDecoderTest, Next_HalfAMessage_WaitsForMore) {
  FrameDecoder decoder;
  decoder.Append(std::string("\0\0\0\3ab", 6));
  std::string payload;
  EXPECT_FALSE(*decoder.Next(&payload));
  EXPECT_TRUE(decoder.HasPartialFrame());
  decoder.Append("c");
  EXPECT_TRUE(*decoder.Next(&payload));
  EXPECT_EQ(payload, "abc");
}

}  // namespace
}  // namespace temper
