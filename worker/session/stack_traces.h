// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace temper {

// Prepares StackTraces(): call it once, before there are other threads. Takes the signal SIGRTMIN + 6.
void PrepareStackTraces();

// What the threads of this process are doing, all but the one that calls: a text per stack, with the threads that share
// it and a line per frame, innermost first. Each thread is interrupted and walks its own stack; one that does not
// answer within `limit` (it waits for a disk, say) is named at the end. One caller at a time.
std::vector<std::string> StackTraces(std::chrono::milliseconds limit = std::chrono::milliseconds(200));

}  // namespace temper
