// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/storage/publication.h"
#include "worker/checkpoint/hf_repository.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter.h"
#include "worker/parallel/process_group.h"

namespace temper {

struct HfExportOptions {
  // Upper bound of one weight file, in bytes. A single tensor that is larger gets a file of its own.
  int64_t max_shard_size = 5'000'000'000;
  // That share the weights and write together, each into the publication as BeginTogether gave it; all of them call.
  // Null: this rank is alone.
  ProcessGroup* ranks = nullptr;
};

// Writes the model as an HF directory into `folder`, streaming, and leaves the commit to the caller.
//
// The tensors of `source` come out under their names, in their dtypes, in their order and in their files (ExportPlan);
// files are cut anew only when one is larger than max_shard_size. A tied head is written when the source had one.
// config.json carries both spellings (transformers 4 and 5); all other files of the source are copied.
//
// Ranks write the weight files in turn, as many at a time as there are ranks; to who writes one, its pieces come from
// those who have them. The files are the same in every world, and so is the status on every rank.
//
// Failed writes are as in ObjectStore. INVALID_ARGUMENT (NUMERICS): a finite master that the stored dtype can't hold.
absl::Status ExportModel(const HfRepository& source, const FamilySpec& family, const ModelConfig& config,
                         std::span<const WeightView> weights, const HfExportOptions& options, PublishedFolder folder);

}  // namespace temper
