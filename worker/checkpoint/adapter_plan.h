// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/checkpoint/native_model.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/families/adapter_sites.h"
#include "worker/model/transformer.h"

namespace temper {

// Adapters fitted to a model: which, where, and whose numbers they begin with.
struct AdapterPlan {
  PeftConfig peft;
  std::vector<AdapterSite> sites;      // not empty; two that share an adapter have the same internal name
  std::unique_ptr<PeftAdapter> start;  // null: new adapters

  // How the model is built. `seed` is that of new adapters.
  TransformerOptions ModelOptions(at::ScalarType dtype, int64_t seed) const;

  // What adapter_config.json says in a format.
  PeftConfig ConfigIn(AdapterFormat format) const;

  // Embedding and head are one matrix, but not their adapters (PEFT's default): there is no merged model.
  bool changes_tied_apart(const ModelConfig& config) const;
};

// New adapters. `peft` says what was asked for; targets and modules may be patterns. Looks at headers only.
// INVALID_ARGUMENT, with the field of the job that is wrong: targets or modules that the model does not have, a rank
// that is larger than a module's matrix, a method that PEFT does not have for a target.
absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanNewAdapters(PeftConfig peft, const NativeRepository& model);

// Those of a PEFT directory, trained on with this dropout. Looks at headers, and at tensors that must be equal to
// others. The same errors, and those of PeftAdapter::Open: an adapter of another base model, or of a kind that temper
// does not have.
absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanFromAdapter(const std::string& uri, double dropout,
                                                             const NativeRepository& model);

// All that the adapter's file of a model built with the plan's options holds.
absl::StatusOr<std::vector<AdapterTensor>> TensorsOfPlan(const AdapterPlan& plan, const NativeRepository& source,
                                                         const TrainableModel& model, AdapterFormat format);

// Gives that model the numbers that its adapters begin with, if there are any. Errors as PeftAdapter::Load.
absl::Status LoadStart(const AdapterPlan& plan, const NativeRepository& source, const TrainableModel& model);

}  // namespace temper
