// SPDX-License-Identifier: Apache-2.0
#include "server/launch/gpu_names.h"

#include <set>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace temper {

absl::StatusOr<std::vector<std::string>> NameGpus(int count, const char* visible) {
  std::vector<std::string> names;
  if (visible == nullptr) {
    for (int gpu = 0; gpu < count; ++gpu) names.push_back(absl::StrCat(gpu));
    return names;
  }
  // As CUDA reads it: what follows a name that is none does not count.
  for (const absl::string_view name : absl::StrSplit(visible, ',', absl::SkipWhitespace())) {
    if (absl::StartsWith(name, "-")) break;
    names.emplace_back(name);
  }
  if (static_cast<int>(names.size()) < count) {
    return absl::InvalidArgumentError(
        absl::StrCat(count, " GPUs are asked for, but CUDA_VISIBLE_DEVICES=", visible, " leaves ", names.size()));
  }
  names.resize(count);
  if (std::set<std::string>(names.begin(), names.end()).size() < names.size()) {
    return absl::InvalidArgumentError(absl::StrCat("CUDA_VISIBLE_DEVICES=", visible, " names a GPU twice"));
  }
  return names;
}

}  // namespace temper
