// SPDX-License-Identifier: Apache-2.0
#include "worker/session/frame.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace temper {

absl::Status WriteMessage(int fd, const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  if (size > kMaxFrameBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a message of ", size, " bytes is over the limit of ", kMaxFrameBytes));
  }
  const uint32_t length = htonl(static_cast<uint32_t>(size));
  std::string frame(reinterpret_cast<const char*>(&length), sizeof length);
  message.AppendToString(&frame);

  std::string_view rest = frame;
  while (!rest.empty()) {
    // MSG_NOSIGNAL: a peer that is gone is an error to report, not a signal to die of.
    const ssize_t sent = send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        pollfd writable{fd, POLLOUT, 0};
        poll(&writable, 1, -1);
        continue;
      }
      return absl::UnavailableError(absl::StrCat("write to the socket: ", strerror(errno)));
    }
    rest.remove_prefix(static_cast<size_t>(sent));
  }
  return absl::OkStatus();
}

void FrameDecoder::Append(std::string_view bytes) {
  buffer_.erase(0, consumed_);
  consumed_ = 0;
  buffer_.append(bytes);
}

absl::StatusOr<bool> FrameDecoder::Next(std::string* payload) {
  const std::string_view rest = std::string_view(buffer_).substr(consumed_);
  uint32_t length = 0;
  if (rest.size() < sizeof length) return false;
  std::memcpy(&length, rest.data(), sizeof length);
  length = ntohl(length);
  if (length > kMaxFrameBytes) {
    return absl::DataLossError(
        absl::StrCat("a message claims to have ", length, " bytes, over the limit of ", kMaxFrameBytes));
  }
  if (rest.size() < sizeof length + length) return false;
  payload->assign(rest.substr(sizeof length, length));
  consumed_ += sizeof length + length;
  return true;
}

}  // namespace temper
