// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

namespace temper {

// What the kernel tells of a process's threads, for one that does not answer: a line per state, such as
// "threads 12 (temper-rank), 13 (temper-rank): T (stopped), in do_signal_stop". Needs no root; what may not be read is
// left out. Empty when there is no such process.
std::string ThreadStates(pid_t pid);

}  // namespace temper
