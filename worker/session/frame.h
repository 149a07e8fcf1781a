// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message_lite.h"

namespace temper {

// How a node and its ranks cut the byte stream of a Unix socket into messages: each is preceded by its length, 4 bytes,
// big endian.

// Longest message that is accepted. A longer length means that the other end writes something else.
inline constexpr uint32_t kMaxFrameBytes = 64u << 20;

// Writes one message, blocking until all of it is in the socket, be that blocking or not. Not synchronised: one writer
// at a time.
//
// UNAVAILABLE: the other end is gone. RESOURCE_EXHAUSTED: longer than kMaxFrameBytes.
absl::Status WriteMessage(int fd, const google::protobuf::MessageLite& message);

// Puts messages together from bytes as they arrive.
class FrameDecoder {
 public:
  void Append(std::string_view bytes);

  // Moves the next whole message into `payload`; false when more bytes are needed.
  //
  // DATA_LOSS: the length is over kMaxFrameBytes; nothing after it can be trusted.
  absl::StatusOr<bool> Next(std::string* payload);

  // Bytes of a message that has begun but is not whole are left.
  bool HasPartialFrame() const { return consumed_ < buffer_.size(); }

 private:
  std::string buffer_;
  size_t consumed_ = 0;
};

}  // namespace temper
