// SPDX-License-Identifier: Apache-2.0
#include "worker/node/signal_watcher.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <utility>

namespace temper {
namespace {

sigset_t TerminationSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void BlockTerminationSignals() {
  const sigset_t set = TerminationSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

SignalWatcher::SignalWatcher(std::function<void(const std::string&)> on_signal) : on_signal_(std::move(on_signal)) {
  const sigset_t set = TerminationSignals();
  signals_ = signalfd(-1, &set, SFD_CLOEXEC);
  ended_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] {
    for (;;) {
      pollfd fds[] = {{signals_, POLLIN, 0}, {ended_, POLLIN, 0}};
      if (poll(fds, 2, -1) < 0) continue;  // EINTR
      if (fds[1].revents != 0) return;
      signalfd_siginfo info;
      if (read(signals_, &info, sizeof info) != sizeof info) continue;
      on_signal_(std::string("SIG") + sigabbrev_np(static_cast<int>(info.ssi_signo)));
    }
  });
}

SignalWatcher::~SignalWatcher() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(ended_, &one, sizeof one);
  thread_.join();
  close(ended_);
  close(signals_);
}

}  // namespace temper
