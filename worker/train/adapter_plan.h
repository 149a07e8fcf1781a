// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/checkpoint/native_model.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/families/adapter_sites.h"
#include "worker/model/transformer.h"
#include "worker/train/train_job.h"

namespace temper {

// What a job with `lora` trains, fitted to its model and to the adapter that it begins with.
struct AdapterPlan {
  PeftConfig peft;
  std::vector<AdapterSite> sites;      // not empty
  std::unique_ptr<PeftAdapter> start;  // null: new adapters

  // How the model is built. `seed` is that of new adapters.
  TransformerOptions ModelOptions(at::ScalarType dtype, int64_t seed) const;
};

// Null for a job without `lora`. Looks at headers only. INVALID_ARGUMENT, or as PeftAdapter::Open: targets or modules
// that the model does not have, a rank that is larger than a module's matrix, an adapter of another base model.
absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanAdapters(const TrainJob& job, const NativeRepository& model);

// How the job's model is built; `plan` as PlanAdapters has it.
TransformerOptions ModelOptions(const TrainJob& job, const AdapterPlan* plan, at::ScalarType dtype);

// The HF module of each adapter, in their order.
std::vector<std::string> HfModules(const AdapterPlan& plan, std::span<LoraAdapter* const> adapters);

// All that the adapter's file of a model built with the plan's options holds.
absl::StatusOr<std::vector<AdapterTensor>> TensorsOfPlan(const AdapterPlan& plan, const NativeRepository& source,
                                                         const Transformer& model);

}  // namespace temper
