// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "temper/v1/job.pb.h"

namespace temper {

// Puts the commit in the place of the revision of every hf:// URI that the job reads, so that all its ranks, and the
// gangs after them, read the same whatever becomes of the branch. Looks it up in the server's cache and on the hub, for
// at most kShortStorageDeadline each.
//
// INVALID_ARGUMENT with a violation for each that is wrong; UNAVAILABLE when a hub can't be asked.
absl::Status PinRevisions(v1::JobSpec& spec);

}  // namespace temper
