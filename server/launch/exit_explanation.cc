// SPDX-License-Identifier: Apache-2.0
#include "server/launch/exit_explanation.h"

#include <sys/wait.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace temper {
namespace {

struct ExitRecord {
  std::optional<FailureCause> cause;
  std::string message;
};

// A worker that died may have left half a file, or none.
std::optional<ExitRecord> ReadExitRecord(const std::filesystem::path& path) {
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto text = [&json](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  return ExitRecord{FailureCauseFromName(text("cause")), text("message")};
}

std::string DescribeStatus(std::optional<int> status) {
  if (!status) return "temper-worker ended while no server watched";
  if (WIFSIGNALED(*status)) {
    const int signal = WTERMSIG(*status);
    return absl::StrCat("temper-worker was killed by signal ", signal, " (", strsignal(signal), ")");
  }
  return absl::StrCat("temper-worker exited with status ", WEXITSTATUS(*status));
}

// Invalid UTF-8 must not get into a protobuf string: what is not ASCII is shown as hexadecimal.
std::string LastLine(const std::filesystem::path& path) {
  constexpr std::streamoff kTail = 1024;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const std::streamoff size = file.tellg();
  file.seekg(std::max<std::streamoff>(0, size - kTail));
  std::string tail{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  absl::StripTrailingAsciiWhitespace(&tail);
  std::string line;
  for (const char c : tail.substr(tail.rfind('\n') + 1)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      line += c;
    } else {
      absl::StrAppend(&line, "\\x", absl::Hex(byte, absl::kZeroPad2));
    }
  }
  return line;
}

}  // namespace

WorkerExit ExplainExit(const std::filesystem::path& run_dir, std::optional<int> wait_status) {
  WorkerExit exit;
  const std::optional<ExitRecord> record = ReadExitRecord(run_dir / "exit.json");
  exit.left_word = record.has_value();
  if (record && record->cause && *record->cause != FailureCause::kNone) {
    exit.cause = *record->cause;
    exit.message = record->message;
    exit.names_cause = true;
    return exit;
  }
  const std::string log = (run_dir / "worker.log").string();
  exit.message = absl::StrCat(DescribeStatus(wait_status), " without having reported an end");
  const std::string word = record && !record->message.empty() ? record->message : LastLine(log);
  if (!word.empty()) absl::StrAppend(&exit.message, ": ", word);
  absl::StrAppend(&exit.message, " (its output is in ", log, ")");
  return exit;
}

WorkerExit MostTelling(const std::vector<WorkerExit>& exits) {
  const auto tells_less = [](const WorkerExit& exit) {
    if (exit.names_cause && exit.cause != FailureCause::kRankLost) return 0;
    if (!exit.left_word) return 1;
    return exit.names_cause ? 2 : 3;
  };
  return *std::min_element(exits.begin(), exits.end(),
                           [&](const WorkerExit& a, const WorkerExit& b) { return tells_less(a) < tells_less(b); });
}

}  // namespace temper
