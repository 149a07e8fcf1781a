// SPDX-License-Identifier: Apache-2.0
#include "worker/node/rank_end.h"

#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/session/utf8.h"

namespace temper {
namespace {

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? absl::StrCat("SIG", name) : absl::StrCat("signal ", signal);
}

// A C++ program that could not allocate says so on stderr before it aborts.
bool SaysOutOfMemory(const std::deque<std::string>& lines) {
  return std::any_of(lines.begin(), lines.end(), [](const std::string& line) {
    return absl::StrContains(line, "std::bad_alloc") || absl::StrContains(line, "can't allocate memory");
  });
}

// What is shown of a dead rank's stderr. The rest is in the job's log.
constexpr size_t kShownBytes = 4096;

std::string LastErrors(const std::deque<std::string>& lines) {
  if (lines.empty()) return "It wrote nothing to stderr.";
  std::string text = absl::StrJoin(lines, "\n");
  if (text.size() > kShownBytes) text = absl::StrCat("…", text.substr(text.size() - kShownBytes));
  return absl::StrCat("The last lines of its stderr:\n", text);
}

}  // namespace

v1::RankEnd ExplainDeath(const RankDeath& death) {
  v1::RankEnd end;
  end.set_cause(v1::FAILURE_CAUSE_RANK_LOST);
  const int status = death.exit.wait_status;
  std::string message;
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    end.set_exit_status(-signal);
    message = absl::StrCat("temper-rank was killed by ", SignalName(signal));
    if (signal == SIGKILL && death.oom_killed) {
      end.set_cause(v1::FAILURE_CAUSE_OUT_OF_MEMORY);
      absl::StrAppend(&message, " because the node ran out of memory: lower training.micro_batch_tokens, train a",
                      " smaller model or LoRA adapters, or give the node more memory");
    } else if (signal == SIGKILL) {
      absl::StrAppend(&message, " (by a person, by the platform, or because the host ran out of memory)");
    }
  } else {
    end.set_exit_status(WEXITSTATUS(status));
    message = absl::StrCat("temper-rank ended with exit status ", WEXITSTATUS(status), " without saying why");
  }
  if (SaysOutOfMemory(death.exit.last_errors)) {
    end.set_cause(v1::FAILURE_CAUSE_OUT_OF_MEMORY);
    absl::StrAppend(&message, "; it ran out of memory: lower training.micro_batch_tokens, train a smaller model or",
                    " LoRA adapters, or give the node more memory");
  }
  end.set_message(ReplaceInvalidUtf8(absl::StrCat(message, ". ", LastErrors(death.exit.last_errors))));
  return end;
}

}  // namespace temper
