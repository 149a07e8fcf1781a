// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/status/status.h"
#include "common/storage/publication.h"
#include "worker/checkpoint/adapter_plan.h"
#include "worker/checkpoint/native_model.h"
#include "worker/model/trainable_model.h"
#include "worker/train/export_verifier.h"
#include "worker/train/gang.h"
#include "worker/train/stop_signal.h"
#include "worker/train/train_job.h"

namespace temper {

// How many layers of an export are compared with transformers' model at a time, in `available` bytes of memory: 0 for
// all, or as few as show all that the model does; nothing when not even those fit, twice in fp32.
std::optional<int64_t> LayersToCompare(const TrainableModel& model, const ModelConfig& config, int64_t available);

// Adds what the verifier finds in an export that was written, model and adapter, each in its place of
// verification.json. `model` is what was trained. CANCELLED when `stop` asks for it; rank 0 of a gang, which does this
// alone, is asked in vain: the others are gone, with what a checkpoint would need.
absl::Status AddComparisons(const TrainJob& job, const Gang& gang, const NativeRepository& source,
                            const AdapterPlan* plan, const TrainableModel& model, const Publication& publication,
                            const StopSignal& stop, TrainObserver& observer, const ExportVerifier& verifier,
                            nlohmann::json& verification);

}  // namespace temper
