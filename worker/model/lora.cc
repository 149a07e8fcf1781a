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

at::Tensor RowLengths(const at::Tensor& weight_OI) { return at::linalg_vector_norm(weight_OI, 2, {1}); }

// W x of the adapter's rows, of what is left of x where some was dropped.
at::Tensor WithoutBias(const LoraAdapter& adapter, const AdaptedMap& map, const at::Tensor& in_TI, bool dropped,
                       const at::Tensor& y_TO) {
  if (dropped) return ops::Linear(in_TI, map.weight_OI.narrow(0, adapter.row, adapter.rows));
  const at::Tensor y = y_TO.narrow(1, adapter.row, adapter.rows);
  return map.bias_O.defined() ? y - map.bias_O.narrow(0, adapter.row, adapter.rows) : y;
}

}  // namespace

std::unique_ptr<LoraAdapter> MakeLoraAdapter(const LoraConfig& config, const std::string& site, int64_t row,
                                             int64_t rows, int64_t in_features, at::ScalarType dtype) {
  auto adapter = std::make_unique<LoraAdapter>();
  adapter->site = site;
  adapter->row = row;
  adapter->rows = rows;
  const auto rank = static_cast<double>(config.rank);
  adapter->scale = config.alpha / (config.rslora ? std::sqrt(rank) : rank);
  adapter->dropout = config.dropout;
  InitParameter(adapter->a_RI, site + ".lora_A.weight", {config.rank, in_features}, dtype, /*trainable=*/true);
  InitParameter(adapter->b_OR, site + ".lora_B.weight", {rows, config.rank}, dtype, /*trainable=*/true);
  if (config.dora) InitParameter(adapter->m_O, site + ".lora_magnitude_vector", {rows}, dtype, /*trainable=*/true);
  const double bound = 1.0 / std::sqrt(static_cast<double>(in_features));
  auto generator = at::make_generator<at::CPUGeneratorImpl>(SeedOf(config.seed, site));
  const at::Tensor a_RI = at::empty({config.rank, in_features}, at::kFloat).uniform_(-bound, bound, generator);
  StoreMaster({adapter->a_RI.name, &adapter->a_RI, 0, config.rank}, a_RI);
  return adapter;
}

at::Tensor AdaptedRows(const LoraAdapter& adapter, const at::Tensor& weight_OI) {
  const at::NoGradGuard no_grad;
  const at::Tensor update_OI = at::matmul(adapter.b_OR.weight.to(at::kFloat), adapter.a_RI.weight.to(at::kFloat));
  return at::add(weight_OI.narrow(0, adapter.row, adapter.rows).to(at::kFloat), update_OI, adapter.scale);
}

void InitMagnitude(LoraAdapter& adapter, const at::Tensor& weight_OI) {
  if (!adapter.m_O.weight.defined()) return;
  StoreMaster({adapter.m_O.name, &adapter.m_O, 0, adapter.rows}, RowLengths(AdaptedRows(adapter, weight_OI)));
}

at::Tensor AddLoraOutput(const LoraAdapter& adapter, const AdaptedMap& map, const at::Tensor& x_TI,
                         const at::Tensor& y_TO) {
  const bool drops = adapter.dropout > 0 && at::GradMode::is_enabled();
  const at::Tensor in_TI = drops ? at::dropout(x_TI, adapter.dropout, /*train=*/true) : x_TI;
  at::Tensor update = ops::Linear(ops::Linear(in_TI, adapter.a_RI.weight, {}, adapter.a_RI.gradient),
                                  adapter.b_OR.weight, {}, adapter.b_OR.gradient)
                          .mul(adapter.scale);
  if (adapter.m_O.weight.defined()) {
    const at::Tensor lengths_O = RowLengths(AdaptedRows(adapter, map.weight_OI)).to(x_TI.scalar_type());
    const at::Tensor ratio_O = adapter.m_O.weight / lengths_O;
    update = update * ratio_O + WithoutBias(adapter, map, in_TI, drops, y_TO) * (ratio_O - 1);
  }
  if (adapter.rows == y_TO.size(1)) return y_TO + update;
  const int64_t after = y_TO.size(1) - adapter.row - adapter.rows;
  return y_TO + at::constant_pad_nd(update, {adapter.row, after});
}

}  // namespace temper
