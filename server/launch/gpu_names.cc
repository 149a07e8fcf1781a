// SPDX-License-Identifier: Apache-2.0
#include "server/launch/gpu_names.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace temper {

absl::StatusOr<std::vector<std::string>> NameGpus(int count, const char* visible) {
  std::vector<std::string> names;
  if (visible == nullptr) {
    for (int gpu = 0; gpu < count; ++gpu) names.push_back(absl::StrCat(gpu));
    return names;
  }
  names = absl::StrSplit(visible, ',', absl::SkipWhitespace());
  if (static_cast<int>(names.size()) < count) {
    return absl::InvalidArgumentError(
        absl::StrCat(count, " GPUs are asked for, but CUDA_VISIBLE_DEVICES=", visible, " leaves ", names.size()));
  }
  names.resize(count);
  return names;
}

}  // namespace temper
