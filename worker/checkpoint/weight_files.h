// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/storage/publication.h"
#include "worker/checkpoint/export_plan.h"
#include "worker/checkpoint/hf_repository.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/parallel/process_group.h"

namespace temper {

// A weight file of an export.
struct WeightFile {
  std::string name;
  std::map<std::string, std::string> metadata;
  std::vector<const ExportedTensor*> tensors;
  int64_t size = 0;  // bytes of tensors

  void Add(const ExportedTensor& tensor) {
    tensors.push_back(&tensor);
    size += tensor.entry.size();
  }
};

// Writes them, a piece at a time. `ranks` that share the weights all call it (null: this rank is alone): as many files
// are written at a time as there are ranks, each by another one, to which the pieces come from those who have them.
// Errors as ExportModel, the same on every rank.
absl::Status WriteWeightFiles(const HfRepository& source, const std::vector<WeightFile>& files, const TensorMap& map,
                              ProcessGroup* ranks, PublishedFolder folder);

}  // namespace temper
