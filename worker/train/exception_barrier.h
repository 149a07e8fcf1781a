// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "worker/train/train_job.h"

namespace temper {

// What `work` returns, or what an exception that it throws is as a status: none leaves. What Python has to say of an
// error (its traceback) goes to the observer's log. Where memory ended, however that showed, the status is
// RESOURCE_EXHAUSTED (OUT_OF_MEMORY), and its message begins with `out_of_memory`.
absl::Status WithoutExceptions(TrainObserver& observer, const std::string& out_of_memory,
                               const std::function<absl::Status()>& work);

}  // namespace temper
