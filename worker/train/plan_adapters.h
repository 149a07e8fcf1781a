// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/checkpoint/adapter_plan.h"
#include "worker/checkpoint/native_model.h"
#include "worker/train/train_job.h"

namespace temper {

// What a job with `lora` trains, null for another. INVALID_ARGUMENT as PlanNewAdapters and PlanFromAdapter, or when the
// job asks for an export that these adapters can't have.
absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanAdapters(const TrainJob& job, const NativeRepository& model);

// How the job's model is built, on the CPU; `plan` as PlanAdapters has it.
TransformerOptions ModelOptions(const TrainJob& job, const AdapterPlan* plan, at::ScalarType dtype);

}  // namespace temper
