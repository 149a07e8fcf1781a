// SPDX-License-Identifier: Apache-2.0
#include "worker/node/thread_states.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace temper {
namespace {

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// "T (stopped)".
std::string StateIn(const std::string& status) {
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (absl::ConsumePrefix(&line, "State:")) return std::string(absl::StripAsciiWhitespace(line));
  }
  return "gone";
}

// Of one thread, what several may have in common.
std::string StateOf(const std::filesystem::path& task) {
  std::string state = StateIn(ReadAll(task / "status"));
  const std::string waits_in = ReadAll(task / "wchan");  // "0": in no function of the kernel
  if (!waits_in.empty() && waits_in != "0") absl::StrAppend(&state, ", in ", waits_in);
  const std::string syscall = ReadAll(task / "syscall");  // the number first
  const std::string number = syscall.substr(0, syscall.find_first_of(" \n"));
  if (!number.empty() && absl::ascii_isdigit(static_cast<unsigned char>(number[0]))) {
    absl::StrAppend(&state, ", system call ", number);
  }
  return state;
}

}  // namespace

std::string ThreadStates(pid_t pid) {
  std::map<std::string, std::vector<std::string>> by_state;
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"), error)) {
    const std::string name(absl::StripAsciiWhitespace(ReadAll(task.path() / "comm")));
    by_state[StateOf(task.path())].push_back(absl::StrCat(task.path().filename().string(), " (", name, ")"));
  }
  std::string text;
  for (const auto& [state, threads] : by_state) {
    absl::StrAppend(&text, text.empty() ? "" : "\n", "threads ", absl::StrJoin(threads, ", "), ": ", state);
  }
  return text;
}

}  // namespace temper
