// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/jobs/field_check.h"
#include "temper/v1/job.pb.h"

namespace temper {

// Fills in the defaults of a job's method and checks its limits.
void CompleteMethod(v1::Method& method, FieldCheck& check);

// What other fields say that the method would do nothing with, or something wrong, without a word.
void CheckMethodGoesWith(const v1::JobSpec& spec, FieldCheck& check);

bool LearnsFromPairs(const v1::Method& method);

double DefaultLearningRate(const v1::Method& method, bool lora);

}  // namespace temper
