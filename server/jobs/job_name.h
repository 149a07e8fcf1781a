// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper {

// "jobs/{id}", from an id.
std::string JobName(std::string_view id);

// The id in "jobs/{id}". INVALID_ARGUMENT (with `field` as the violation's path) for anything else.
absl::StatusOr<std::string> ParseJobName(std::string_view name, std::string_view field);

// INVALID_ARGUMENT unless `id` has 1 to 63 characters of a-z, 0-9 and hyphen, neither the first nor the last a hyphen:
// it becomes part of paths, of command lines and of names in Kubernetes.
absl::Status CheckJobId(std::string_view id, std::string_view field);

// A free choice: what `display_name` can give of an id, and six random characters ("smollm2-135m-k3f9x2").
std::string ChooseJobId(std::string_view display_name);

}  // namespace temper
