// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lora.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "worker/model/parameter_init.h"
#include "worker/ops/linear.h"

namespace temper {
namespace {

// FNV-1a: std::hash is not the same everywhere.
uint64_t SeedOf(int64_t seed, const std::string& site) {
  uint64_t hash = 14695981039346656037ull ^ static_cast<uint64_t>(seed);
  for (const char c : site) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

}  // namespace

std::unique_ptr<LoraAdapter> MakeLoraAdapter(const LoraConfig& config, const std::string& site, int64_t row,
                                             int64_t rows, int64_t in_features, at::ScalarType dtype) {
  auto adapter = std::make_unique<LoraAdapter>();
  adapter->site = site;
  adapter->row = row;
  adapter->rows = rows;
  adapter->scale = config.alpha / static_cast<double>(config.rank);
  InitParameter(adapter->a_RI, site + ".lora_A.weight", {config.rank, in_features}, dtype, /*trainable=*/true);
  InitParameter(adapter->b_OR, site + ".lora_B.weight", {rows, config.rank}, dtype, /*trainable=*/true);
  const double bound = 1.0 / std::sqrt(static_cast<double>(in_features));
  auto generator = at::make_generator<at::CPUGeneratorImpl>(SeedOf(config.seed, site));
  const at::Tensor a_RI = at::empty({config.rank, in_features}, at::kFloat).uniform_(-bound, bound, generator);
  StoreMaster({adapter->a_RI.name, &adapter->a_RI, 0, config.rank}, a_RI);
  return adapter;
}

at::Tensor AddLoraOutput(const LoraAdapter& adapter, const at::Tensor& x_TI, const at::Tensor& y_TO) {
  const at::Tensor update = ops::Linear(ops::Linear(x_TI, adapter.a_RI.weight), adapter.b_OR.weight).mul(adapter.scale);
  if (adapter.rows == y_TO.size(1)) return y_TO + update;
  const int64_t after = y_TO.size(1) - adapter.row - adapter.rows;
  return y_TO + at::constant_pad_nd(update, {adapter.row, after});
}

}  // namespace temper
