// SPDX-License-Identifier: Apache-2.0
#include "worker/session/stack_traces.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <thread>

#include "absl/debugging/symbolize.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace temper {
namespace {

constexpr int kMaxFrames = 64;
// Of the handler, and of the kernel's way into it.
constexpr int kOwnFrames = 2;

int Signal() { return SIGRTMIN + 6; }

// One thread's answer. Never freed when the thread did not answer in time: it may do so later.
struct Answer {
  pid_t thread = 0;
  std::array<void*, kMaxFrames> frames;
  std::atomic<int> count = -1;  // −1: not there yet
};

std::atomic<Answer*> asked = nullptr;

// On the thread that is asked. backtrace(3) allocates nothing after its first call.
void OnSignal(int) {
  const int error = errno;
  Answer* const answer = asked.load();
  if (answer != nullptr && answer->thread == gettid() && answer->count < 0) {
    answer->count = backtrace(answer->frames.data(), kMaxFrames);
  }
  errno = error;
}

// The frames; none if the thread did not answer.
std::vector<void*> FramesOf(pid_t thread, std::chrono::milliseconds limit) {
  auto answer = std::make_unique<Answer>();
  answer->thread = thread;
  asked = answer.get();
  const auto deadline = std::chrono::steady_clock::now() + limit;
  const bool told = tgkill(getpid(), thread, Signal()) == 0;
  while (told && answer->count < 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  asked = nullptr;
  if (told && answer->count < 0) {
    (void)answer.release();
    return {};
  }
  const int count = std::max(0, answer->count.load());
  void** const first = answer->frames.data();
  return std::vector<void*>(first + std::min(count, kOwnFrames), first + count);
}

std::string FrameText(int number, void* address) {
  // The instruction before the return address is in the function that called.
  void* const call = static_cast<char*>(address) - 1;
  std::array<char, 512> name;
  std::string text = absl::StrFormat("  #%-2d ", number);
  absl::StrAppend(&text, absl::Symbolize(call, name.data(), static_cast<int>(name.size())) ? name.data() : "?");
  Dl_info object;
  if (dladdr(call, &object) != 0 && object.dli_fname != nullptr) {
    const auto offset = reinterpret_cast<uintptr_t>(call) - reinterpret_cast<uintptr_t>(object.dli_fbase);
    const std::string file = std::filesystem::path(object.dli_fname).filename().string();
    absl::StrAppend(&text, " (", file, absl::StrFormat("+0x%x)", offset));
  }
  return text;
}

std::string NameOf(pid_t thread) {
  std::string name;
  std::getline(std::ifstream(absl::StrCat("/proc/self/task/", thread, "/comm")), name);
  return absl::StrCat(thread, " (", name, ")");
}

std::vector<pid_t> OtherThreads() {
  std::vector<pid_t> threads;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    pid_t thread = 0;
    const bool number = absl::SimpleAtoi(task.path().filename().string(), &thread);
    if (number && thread != gettid()) threads.push_back(thread);
  }
  return threads;
}

}  // namespace

void PrepareStackTraces() {
  absl::InitializeSymbolizer("temper-rank");
  void* frame = nullptr;
  backtrace(&frame, 1);  // the first call loads a library
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(Signal(), &action, nullptr);
}

std::vector<std::string> StackTraces(std::chrono::milliseconds limit) {
  std::map<std::vector<void*>, std::vector<std::string>> by_stack;
  std::vector<std::string> silent;
  for (const pid_t thread : OtherThreads()) {
    std::vector<void*> frames = FramesOf(thread, limit);
    (frames.empty() ? silent : by_stack[std::move(frames)]).push_back(NameOf(thread));
  }
  std::vector<std::string> texts;
  for (const auto& [frames, threads] : by_stack) {
    std::string& text = texts.emplace_back(absl::StrCat("stack of ", absl::StrJoin(threads, ", "), ":"));
    for (size_t i = 0; i < frames.size(); ++i) {
      absl::StrAppend(&text, "\n", FrameText(static_cast<int>(i), frames[i]));
    }
  }
  if (!silent.empty()) texts.push_back(absl::StrCat("no stack, for they do not answer: ", absl::StrJoin(silent, ", ")));
  return texts;
}

}  // namespace temper
