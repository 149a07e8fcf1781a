// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace temper {

// A socket that listens at an address of this host, and a port that the system chose: for rank 0 to inherit, and for
// the others to find.
class MeetingListener {
 public:
  MeetingListener() = default;  // none
  ~MeetingListener();
  MeetingListener(const MeetingListener&) = delete;
  MeetingListener& operator=(const MeetingListener&) = delete;

  // Once. `host`: a name or an address of this host. UNAVAILABLE says why not.
  absl::Status Listen(const std::string& host);

  // −1: none.
  int fd() const { return fd_; }
  uint16_t port() const { return port_; }

 private:
  int fd_ = -1;
  uint16_t port_ = 0;
};

}  // namespace temper
