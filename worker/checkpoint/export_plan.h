// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/checkpoint/hf_repository.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/model/parameter.h"

namespace temper {

// A tensor of an export.
struct ExportedTensor {
  SafetensorsEntry entry;  // name, dtype and shape
  size_t file = 0;         // of the source, that it takes its place in
  // What it is made of: the masters, or else the source's own bytes.
  const TensorBinding* binding = nullptr;
  const RepositoryTensor* verbatim = nullptr;
};

// Which tensors an export has: the source's, in its order, names, dtypes and files. What is packed (MXFP4) stays as it
// is when nothing of it is trained; when any of it is, all of it leaves unpacked, in BF16, because a config.json says
// one or the other of the whole model.
struct ExportPlan {
  std::vector<ExportedTensor> tensors;
  std::map<std::string, size_t, std::less<>> by_name;  // indices into `tensors`
  bool quantized = false;                              // some are packed

  // Null when there is none of that name.
  const ExportedTensor* Find(std::string_view name) const;
};

// `map` and `source` must outlive the plan. INTERNAL when a tensor of the source has no rule.
absl::StatusOr<ExportPlan> PlanExport(const HfRepository& source, const TensorMap& map,
                                      std::span<const WeightView> weights);

// The dtype that a weight's values have in a repository: that of its tensor, BF16 of a packed one; "" when it has none
// (a tied head that is not stored).
std::string StoredDtype(const HfRepository& repository, const TensorBinding& binding);

}  // namespace temper
