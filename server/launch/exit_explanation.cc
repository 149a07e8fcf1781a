// SPDX-License-Identifier: Apache-2.0
#include "server/launch/exit_explanation.h"

#include <sys/wait.h>

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
ExitRecord ReadExitRecord(const std::filesystem::path& path) {
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  ExitRecord record;
  if (!json.is_object()) return record;
  const auto text = [&json](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  record.cause = FailureCauseFromName(text("cause"));
  record.message = text("message");
  return record;
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

GangExit ExplainExit(const GangKey& key, const std::filesystem::path& run_dir, std::optional<int> wait_status) {
  GangExit exit;
  exit.key = key;
  const ExitRecord record = ReadExitRecord(run_dir / "exit.json");
  if (record.cause && *record.cause != FailureCause::kNone) {
    exit.cause = *record.cause;
    exit.message = record.message;
    return exit;
  }
  const std::string log = (run_dir / "worker.log").string();
  exit.message = absl::StrCat(DescribeStatus(wait_status), " without having reported an end");
  const std::string word = record.message.empty() ? LastLine(log) : record.message;
  if (!word.empty()) absl::StrAppend(&exit.message, ": ", word);
  absl::StrAppend(&exit.message, " (its output is in ", log, ")");
  return exit;
}

}  // namespace temper
