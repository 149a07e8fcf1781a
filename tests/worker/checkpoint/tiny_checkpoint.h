// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/checkpoint/hf_repository.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/families/family_spec.h"
#include "worker/model/parameter_init.h"

namespace temper {

// A directory that goes when it is no longer needed.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = ::testing::TempDir() + "checkpoint_XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void WriteFile(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

inline std::string DtypeName(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return "F32";
    case at::kHalf:
      return "F16";
    case at::kBFloat16:
      return "BF16";
    case at::kLong:
      return "I64";
    default:
      return "F64";
  }
}

inline std::string SafetensorsBytes(const NamedTensors& tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, tensor] : tensors) entries.push_back({name, DtypeName(tensor), tensor.sizes().vec()});
  std::string bytes = BuildSafetensorsHeader(entries, {{"format", "pt"}});
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor whole = tensor.contiguous();
    bytes.append(static_cast<const char*>(whole.const_data_ptr()), whole.nbytes());
  }
  return bytes;
}

inline void WriteRepository(const std::filesystem::path& directory, const NamedTensors& tensors) {
  std::filesystem::create_directories(directory);
  WriteFile(directory / "config.json", R"({"architectures": ["Tiny"], "eos_token_id": 2})");
  WriteFile(directory / "model.safetensors", SafetensorsBytes(tensors));
}

// A family with every kind of rule: fused rows, a head that may be tied, a derived tensor.
inline FamilySpec TinyFamily() {
  return {.architecture = "Tiny",
          .rules = {{"embed_tokens.weight", {"embed.weight"}},
                    {"layers.{layer}.qkv.weight",
                     {"layers.{layer}.attn.q.weight", "layers.{layer}.attn.k.weight", "layers.{layer}.attn.v.weight"}},
                    {"norm.weight", {"final_norm.weight"}},
                    {"lm_head.weight", {"lm_head.weight"}}},
          .derived_tensors = {"layers.{layer}.inv_freq"}};
}

// The model that TinyFamily describes: two layers, vocabulary 6 padded to 8.
class TinyModel {
 public:
  explicit TinyModel(bool tied, at::ScalarType dtype = at::kFloat) {
    config.num_layers = 2;
    config.tied_head = tied;
    views.push_back({"embed.weight", Add({8, 4}, dtype), 0, 6});
    for (int layer = 0; layer < 2; ++layer) {
      const std::string prefix = "layers." + std::to_string(layer) + ".attn.";
      Parameter* qkv = Add({8, 4}, dtype);
      views.push_back({prefix + "q.weight", qkv, 0, 4});
      views.push_back({prefix + "k.weight", qkv, 4, 2});
      views.push_back({prefix + "v.weight", qkv, 6, 2});
    }
    views.push_back({"final_norm.weight", Add({4}, dtype), 0, 4});
    if (!tied) views.push_back({"lm_head.weight", Add({8, 4}, dtype), 0, 6});
  }

  ModelConfig config;
  std::vector<WeightView> views;

 private:
  Parameter* Add(std::vector<int64_t> shape, at::ScalarType dtype) {
    parameters_.emplace_back();
    InitParameter(parameters_.back(), "parameter", std::move(shape), {.dtype = dtype});
    return &parameters_.back();
  }
  std::deque<Parameter> parameters_;
};

// A checkpoint of that model with random values.
inline NamedTensors TinyTensors(bool with_head, at::ScalarType dtype = at::kBFloat16) {
  at::manual_seed(0);
  NamedTensors tensors = {{"embed_tokens.weight", at::randn({6, 4}).to(dtype)},
                          {"layers.0.inv_freq", at::randn({2})},
                          {"layers.0.qkv.weight", at::randn({8, 4}).to(dtype)},
                          {"layers.1.qkv.weight", at::randn({8, 4}).to(dtype)},
                          {"norm.weight", at::randn({4})}};
  if (with_head) tensors.push_back({"lm_head.weight", at::randn({6, 4}).to(dtype)});
  return tensors;
}

}  // namespace temper
