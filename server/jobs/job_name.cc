// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_name.h"

#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace temper {
namespace {

constexpr std::string_view kCollection = "jobs/";
constexpr size_t kMaxIdBytes = 63;

bool IsJobId(std::string_view id) {
  if (id.empty() || id.size() > kMaxIdBytes || id.front() == '-' || id.back() == '-') return false;
  for (char c : id) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '-') return false;
  }
  return true;
}

// `text` in quotes, fit for a message.
std::string Quote(std::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(std::string(text.substr(0, 100))), "'");
}

}  // namespace

std::string JobName(std::string_view id) { return std::string(kCollection).append(id); }

absl::StatusOr<std::string> ParseJobName(std::string_view name, std::string_view field) {
  const bool in_collection = name.substr(0, kCollection.size()) == kCollection;
  if (in_collection && IsJobId(name.substr(kCollection.size()))) return std::string(name.substr(kCollection.size()));
  return InvalidFields(
      {{std::string(field), name.empty() ? "is required: the name of a job, as jobs/ID"
                                         : absl::StrCat(Quote(name), " is not the name of a job, as jobs/ID")}});
}

absl::Status CheckJobId(std::string_view id, std::string_view field) {
  if (IsJobId(id)) return absl::OkStatus();
  return InvalidFields({{std::string(field), absl::StrCat(Quote(id),
                                                          " must have 1 to 63 characters of a-z, 0-9 and "
                                                          "hyphen, and neither begin nor end with a hyphen")}});
}

std::string ChooseJobId(std::string_view display_name) {
  constexpr size_t kMaxStemBytes = 40;
  std::string id;
  for (char c : display_name) {
    if (id.size() == kMaxStemBytes) break;
    if (absl::ascii_isalnum(c)) {
      id += absl::ascii_tolower(c);
    } else if (!id.empty() && id.back() != '-') {
      id += '-';
    }
  }
  if (id.empty()) id = "job";
  if (id.back() != '-') id += '-';
  // Without letters that look like others.
  constexpr std::string_view kAlphabet = "23456789abcdefghjkmnpqrstuvwxyz";
  std::random_device random;
  for (int i = 0; i < 6; ++i) id += kAlphabet[random() % kAlphabet.size()];
  return id;
}

}  // namespace temper
