// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/checkpoint/hf_repository.h"

namespace temper {

// Matrices in MXFP4 (OCP Microscaling Formats 1.0), as gpt-oss has its experts: NAME_blocks, u8 [experts, out, groups,
// 16], holds two 4-bit numbers (E2M1) a byte, the low half first; NAME_scales, u8 [experts, out, groups], a power of
// two, biased by 127, for each group of 32 inputs. Unpacked it is NAME, [experts, in, out]; every number is exact in
// bf16.
struct Mxfp4Tensor {
  const RepositoryTensor* blocks = nullptr;
  const RepositoryTensor* scales = nullptr;
};

// The two tensors behind NAME; none when the repository does not have them both.
std::optional<Mxfp4Tensor> FindMxfp4(const HfRepository& repository, std::string_view name);

// What is wrong with a pair that shall unpack to `shape`; "" when nothing is.
std::string Mxfp4Mismatch(const Mxfp4Tensor& packed, const std::vector<int64_t>& shape);

// One expert, fp32 [in, out]; the others are not read.
absl::StatusOr<at::Tensor> UnpackMxfp4(const HfRepository& repository, const Mxfp4Tensor& packed, int64_t expert);

}  // namespace temper
