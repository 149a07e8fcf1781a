// SPDX-License-Identifier: Apache-2.0
#include "worker/data/teacher_fields.h"

#include <cmath>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/counted.h"
#include "worker/data/json_line.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kTokens[] = "teacher_tokens", kLogprobs[] = "teacher_logprobs";
constexpr double kRounding = 0.01;  // of a sum of probabilities that were stored in few bits

absl::StatusOr<const Json*> FindLists(const SampleFields& fields, const char* field) {
  const Json* const lists = fields.Find(field);
  if (lists == nullptr) {
    return fields.Invalid(
        absl::StrCat("the sample has no ", fields.Name(field),
                     ": method.distillation has no teacher, so samples must bring what one has said"));
  }
  if (!lists->is_array()) {
    return fields.Invalid(absl::StrCat(fields.Name(field), " must be a list, not ", JsonTypeName(*lists)));
  }
  return lists;
}

// What is wrong with one row; empty when nothing is.
std::string AddRow(const Json& ids, const Json& logprobs, int64_t vocab_size, TeacherTokens& teacher) {
  if (!ids.is_array() || !logprobs.is_array()) return "is no list";
  if (ids.size() != logprobs.size()) {
    return absl::StrCat("differ: ", Counted(static_cast<int64_t>(ids.size()), "token"), ", but ", logprobs.size(),
                        " of the log-probabilities");
  }
  const auto size = static_cast<int64_t>(ids.size());
  if (size < 1 || size >= vocab_size) return absl::StrCat("must have 1 to ", vocab_size - 1, " tokens, not ", size);
  std::set<int64_t> seen;
  double sum = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = ids[i].is_number_integer() ? ids[i].get<int64_t>() : -1;
    if (id < 0 || id >= vocab_size) {
      return absl::StrCat("has the token ", ids[i].dump(), ", which is no id below ", vocab_size);
    }
    if (!seen.insert(id).second) return absl::StrCat("has the token ", id, " twice");
    if (!logprobs[i].is_number()) return absl::StrCat("has ", logprobs[i].dump(), " as a log-probability");
    const auto logprob = logprobs[i].get<double>();
    sum += std::exp(logprob);
    teacher.tokens.push_back(static_cast<uint32_t>(id));
    teacher.logprobs.push_back(static_cast<float>(logprob));
  }
  if (!(sum <= 1 + kRounding))
    return absl::StrCat("has probabilities that sum to ", sum, ": give their natural logarithms");
  teacher.starts.push_back(static_cast<int64_t>(teacher.tokens.size()));
  return "";
}

}  // namespace

absl::StatusOr<TeacherTokens> ReadTeacherTokens(const SampleFields& fields, int64_t vocab_size) {
  const absl::StatusOr<const Json*> tokens = FindLists(fields, kTokens), logprobs = FindLists(fields, kLogprobs);
  if (!tokens.ok()) return tokens.status();
  if (!logprobs.ok()) return logprobs.status();
  if ((*tokens)->size() != (*logprobs)->size()) {
    return fields.Invalid(absl::StrCat(fields.Name(kTokens), " has ", (*tokens)->size(), " lists, and ",
                                       fields.Name(kLogprobs), " ", (*logprobs)->size()));
  }
  TeacherTokens teacher;
  for (size_t row = 0; row < (*tokens)->size(); ++row) {
    const std::string wrong = AddRow((**tokens)[row], (**logprobs)[row], vocab_size, teacher);
    if (!wrong.empty()) {
      return fields.Invalid(
          absl::StrCat("list ", row + 1, " of ", fields.Name(kTokens), " and ", fields.Name(kLogprobs), " ", wrong));
    }
  }
  return teacher;
}

}  // namespace temper
