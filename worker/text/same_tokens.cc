// SPDX-License-Identifier: Apache-2.0
#include "worker/text/same_tokens.h"

#include <algorithm>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/counted.h"

namespace temper {
namespace {

std::string Describe(const absl::StatusOr<std::string>& token) {
  return token.ok() ? absl::StrCat("'", *token, "'") : "no token";
}

}  // namespace

std::string TokenDifference(const Tokenizer& model, const Tokenizer& teacher) {
  std::string first;
  int64_t more = 0;
  for (int64_t id = 0; id <= std::max(model.max_id(), teacher.max_id()); ++id) {
    const auto ours = model.IdToToken(static_cast<uint32_t>(id)), theirs = teacher.IdToToken(static_cast<uint32_t>(id));
    if (ours.ok() == theirs.ok() && (!ours.ok() || *ours == *theirs)) continue;
    if (first.empty()) {
      first =
          absl::StrCat("id ", id, " is ", Describe(ours), " to the model and ", Describe(theirs), " to the teacher");
    } else {
      ++more;
    }
  }
  return more == 0 ? first
                   : absl::StrCat(first, ", and ", Counted(more, "more id"), more == 1 ? " differs" : " differ");
}

}  // namespace temper
