// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/agree.h"

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/failure.h"

namespace temper {
namespace {

std::string ToText(const absl::Status& status) {
  if (status.ok()) return "";
  return absl::StrCat(static_cast<int>(status.code()), " ", std::string(FailureCauseName(CauseOf(status))), " ",
                      std::string(status.message()));
}

absl::Status FromText(const std::string& text) {
  const std::vector<std::string> fields = absl::StrSplit(text, absl::MaxSplits(' ', 2));
  int code = 0;
  if (fields.size() != 3 || !absl::SimpleAtoi(fields[0], &code)) return absl::InternalError(text);
  return WithCause(absl::Status(static_cast<absl::StatusCode>(code), fields[2]),
                   FailureCauseFromName(fields[1]).value_or(FailureCause::kInternal));
}

}  // namespace

absl::Status Agree(const absl::Status& mine, ProcessGroup* ranks) {
  if (ranks == nullptr) return mine;
  const std::string own = ToText(mine);
  for (const std::string& text : ranks->AllGatherText(own)) {
    if (!text.empty()) return text == own ? mine : FromText(text);  // one's own may carry more than its text
  }
  return absl::OkStatus();
}

}  // namespace temper
