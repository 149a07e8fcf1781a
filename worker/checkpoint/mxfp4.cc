// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/mxfp4.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "worker/checkpoint/tensor_map.h"

namespace temper {
namespace {

constexpr int64_t kGroup = 32;
constexpr int kScaleBias = 127;

// E2M1: sign, two bits of exponent, one of mantissa.
constexpr std::array<float, 16> kValues = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                           -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

}  // namespace

std::optional<Mxfp4Tensor> FindMxfp4(const HfRepository& repository, std::string_view name) {
  const Mxfp4Tensor packed{repository.FindTensor(std::string(name) + "_blocks"),
                           repository.FindTensor(std::string(name) + "_scales")};
  if (packed.blocks == nullptr || packed.scales == nullptr) return std::nullopt;
  return packed;
}

std::string Mxfp4Mismatch(const Mxfp4Tensor& packed, const std::vector<int64_t>& shape) {
  const SafetensorsEntry &blocks = packed.blocks->entry, &scales = packed.scales->entry;
  if (blocks.dtype != "U8" || scales.dtype != "U8") {
    return absl::StrCat(blocks.name, " and its scales are ", blocks.dtype, " and ", scales.dtype, " instead of U8");
  }
  if (shape.size() != 3 || shape[1] % kGroup != 0) {
    return absl::StrCat(blocks.name, " cannot unpack to ", ShapeText(shape), ": groups are ", kGroup, " inputs");
  }
  const std::vector<int64_t> groups = {shape[0], shape[2], shape[1] / kGroup};
  std::vector<int64_t> bytes = groups;
  bytes.push_back(kGroup / 2);
  if (blocks.shape != bytes) {
    return absl::StrCat(blocks.name, " is ", ShapeText(blocks.shape), " instead of ", ShapeText(bytes));
  }
  if (scales.shape != groups) {
    return absl::StrCat(scales.name, " is ", ShapeText(scales.shape), " instead of ", ShapeText(groups));
  }
  return "";
}

absl::StatusOr<at::Tensor> UnpackMxfp4(const HfRepository& repository, const Mxfp4Tensor& packed, int64_t expert) {
  const std::vector<int64_t>& shape = packed.scales->entry.shape;  // experts, out, groups
  const absl::StatusOr<at::Tensor> block_bytes = repository.Rows(*packed.blocks, expert, 1),
                                   scale_bytes = repository.Rows(*packed.scales, expert, 1);
  if (!block_bytes.ok() || !scale_bytes.ok()) return block_bytes.ok() ? scale_bytes.status() : block_bytes.status();
  const std::string_view blocks = BytesOf(*block_bytes), scales = BytesOf(*scale_bytes);
  at::Tensor matrix_OI = at::empty({shape[1], shape[2] * kGroup}, at::kFloat);
  float* to = matrix_OI.mutable_data_ptr<float>();
  for (size_t group = 0; group < scales.size(); ++group) {
    const float scale = std::ldexp(1.0f, static_cast<unsigned char>(scales[group]) - kScaleBias);
    for (int64_t i = 0; i < kGroup / 2; ++i) {
      const auto byte = static_cast<unsigned char>(blocks[group * (kGroup / 2) + static_cast<size_t>(i)]);
      *to++ = kValues[byte & 0xf] * scale;
      *to++ = kValues[byte >> 4] * scale;
    }
  }
  return matrix_OI.t();
}

}  // namespace temper
