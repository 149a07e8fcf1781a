// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "worker/parallel/process_group.h"

namespace temper {

// OK when every rank says so, else the error of the first one that has one, with its cause: the same on all of them,
// so that all go on, or none does. Every rank calls it. Null: this rank is alone. Throws CollectiveError.
absl::Status Agree(const absl::Status& mine, ProcessGroup* ranks);

}  // namespace temper
