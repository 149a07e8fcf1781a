// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/storage/object_store.h"
#include "worker/checkpoint/hf_repository.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter.h"
#include "worker/parallel/process_group.h"

namespace temper {

// What was found when an export was read back.
struct ExportProof {
  struct Difference {
    std::string tensor;
    int64_t elements = 0;       // how many differ
    int64_t first_element = 0;  // the first that does
    double stored = 0;
    double expected = 0;
  };
  int64_t tensors = 0;  // compared
  int64_t elements = 0;
  int64_t bytes = 0;
  std::vector<Difference> differences;  // empty: the export is proved

  bool passed() const { return differences.empty(); }
  // For verification.json: {"passed": …, "tensors": …, …}.
  nlohmann::ordered_json ToJson() const;
};

// Reads an HF directory back from `store` (before or after its commit) and compares every tensor, bit for bit, with the
// model's masters rounded to nearest even to the stored dtype. The rounding is not the exporter's own code. Tensors of
// `source` that no weight stands behind must be equal to the source's. DATA_LOSS when the directory can't be read as a
// checkpoint of this model at all (a file damaged, a tensor missing or surplus).
//
// `ranks` that share the weights all call it and get the same status (null: this rank is alone). Rank 0 compares; what
// is different stands in its proof alone. Throws CollectiveError.
absl::StatusOr<ExportProof> ProveExport(const ObjectStore& store, std::string_view directory,
                                        const HfRepository& source, const FamilySpec& family, const ModelConfig& config,
                                        std::span<const WeightView> weights, ProcessGroup* ranks = nullptr);

}  // namespace temper
