// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace temper {

// The files that `data.uri` stands for, as URIs:
//   a file           that one
//   a directory      (or all of a bucket or repository) what lies directly in it and ends in .jsonl, .jsonl.gz,
//   .jsonl.zst or .parquet, sorted by name a pattern        in the last component, with *, ? and […]: the files that
//   match it, sorted by name
// NOT_FOUND when there are none, INVALID_ARGUMENT for a URI that can't name a file; else as ObjectStore has it.
absl::StatusOr<std::vector<std::string>> FindDataFiles(std::string_view uri);

}  // namespace temper
