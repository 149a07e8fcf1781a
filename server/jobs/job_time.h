// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// Keeps v1::Job::time_spent: where the wall-clock time of a job went. Its categories always sum to the time from the
// job's creation to `until`, whatever clocks say: time is spent once, in order.

// The time from `until` to `time` goes to what the job's state and phase say that it did then; to be called before they
// change. Between two steps that is `other`, of which SpendStep and SpendValidation take what they explain. `lost`: the
// gang has just been lost, and with it what it was doing.
void SpendUntil(v1::Job& job, WallTime time, bool lost = false);

// A step has been reported, after SpendUntil. One that was reported before counts as lost: its first time was in vain.
// One that a lost gang had taken, which nobody heard of until a new one was about to go on from there, was not lost.
void SpendStep(v1::Job& job, const v1::StepMetrics& step);

// A validation has been reported, after SpendUntil.
void SpendValidation(v1::Job& job, const v1::ValidationResult& validation);

// The categories and their seconds, in the order of the message: {"queued", 3.5}, …
std::vector<std::pair<std::string, double>> Categories(const v1::JobTime& spent);

}  // namespace temper
