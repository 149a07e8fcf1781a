// SPDX-License-Identifier: Apache-2.0
#include "client/command/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "client/command/exit_code.h"

namespace temper::command {
namespace {

// The destructor's way to end the thread. Not a signal that anybody sends by habit.
constexpr int kLeave = SIGUSR2;

sigset_t Signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, kLeave}) sigaddset(&set, signal);
  return set;
}

}  // namespace

Interrupt::Interrupt() {
  const sigset_t set = Signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this, set] {
    for (;;) {
      int signal = 0;
      if (sigwait(&set, &signal) != 0 || signal == kLeave) return;
      if (source_.stop_requested()) _exit(kExitOther);
      source_.request_stop();
    }
  });
}

Interrupt::~Interrupt() {
  pthread_kill(thread_.native_handle(), kLeave);
  thread_.join();
}

}  // namespace temper::command
