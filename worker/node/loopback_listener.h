// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace temper {

// A socket that listens on the loopback interface, at a port that the system chose: for a rank to inherit.
class LoopbackListener {
 public:
  LoopbackListener() = default;  // none
  ~LoopbackListener();
  LoopbackListener(const LoopbackListener&) = delete;
  LoopbackListener& operator=(const LoopbackListener&) = delete;

  // Once.
  absl::Status Listen();

  // −1: none.
  int fd() const { return fd_; }
  uint16_t port() const { return port_; }

 private:
  int fd_ = -1;
  uint16_t port_ = 0;
};

}  // namespace temper
