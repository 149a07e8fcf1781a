// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lora.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

#include "worker/model/gradient.h"
#include "worker/model/parameter_init.h"
#include "worker/ops/embedding.h"
#include "worker/ops/grouped_linear.h"
#include "worker/ops/matmul.h"

namespace temper {
namespace {

// FNV-1a: std::hash is not the same everywhere.
uint64_t SeedOf(int64_t seed, const std::string& site) {
  uint64_t hash = 14695981039346656037ull ^ static_cast<uint64_t>(seed);
  for (const char c : site) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

// Nothing is dropped where nothing is recorded.
bool Drops(const LoraAdapter& adapter) { return adapter.dropout > 0 && at::GradMode::is_enabled(); }

at::Tensor RowLengths(const at::Tensor& weight_OI) { return at::linalg_vector_norm(weight_OI, 2, {1}); }

// [experts, rows of one, …]
at::Tensor ByExpert(const LoraAdapter& adapter, const Parameter& factor) {
  return factor.weight.unflatten(0, {adapter.experts, -1});
}

// W x of the adapter's rows, of what is left of x where some was dropped.
at::Tensor WithoutBias(const LoraAdapter& adapter, const AdaptedMap& map, const at::Tensor& in_TI, bool dropped,
                       const at::Tensor& y_TO) {
  if (dropped) return ops::Linear(in_TI, map.weight_OI.narrow(0, adapter.row, adapter.rows));
  const at::Tensor y = y_TO.narrow(1, adapter.row, adapter.rows);
  return map.bias_O.defined() ? y - map.bias_O.narrow(0, adapter.row, adapter.rows) : y;
}

}  // namespace

std::unique_ptr<LoraAdapter> MakeLoraAdapter(const LoraConfig& config, const std::string& site, const LoraRows& rows,
                                             const at::TensorOptions& of_weight) {
  auto adapter = std::make_unique<LoraAdapter>();
  adapter->site = site;
  adapter->row = rows.row;
  adapter->rows = rows.rows;
  adapter->experts = rows.experts;
  const auto rank = static_cast<double>(config.rank);
  adapter->scale = config.alpha / (config.rslora ? std::sqrt(rank) : rank);
  adapter->dropout = config.dropout;
  adapter->seed = config.seed;
  const WeightOptions options{.dtype = c10::typeMetaToScalarType(of_weight.dtype()), .device = of_weight.device()};
  InitParameter(adapter->a_RI, site + ".lora_A.weight", {rows.experts * config.rank, rows.in_features}, options);
  InitParameter(adapter->b_OR, site + ".lora_B.weight", {rows.rows, config.rank}, options);
  if (config.dora) InitParameter(adapter->m_O, site + ".lora_magnitude_vector", {rows.rows}, options);
  if (!options.device.is_meta()) DrawFactors(*adapter);
  return adapter;
}

void DrawFactors(LoraAdapter& adapter) {
  Parameter& a_RI = adapter.a_RI;
  const double bound = 1.0 / std::sqrt(static_cast<double>(a_RI.weight.size(1)));
  auto generator = at::make_generator<at::CPUGeneratorImpl>(SeedOf(adapter.seed, adapter.site));
  const at::Tensor drawn_RI = at::empty(a_RI.weight.sizes(), at::kFloat).uniform_(-bound, bound, generator);
  StoreMaster({a_RI.name, &a_RI, 0, a_RI.weight.size(0)}, drawn_RI);
}

std::unique_ptr<LoraAdapter> MakeLoraAdapterAt(const LoraConfig& config, const std::string& site, const LoraRows& rows,
                                               const at::TensorOptions& options) {
  const bool wanted =
      std::any_of(config.sites.begin(), config.sites.end(), [&](const LoraSite& each) { return each.name == site; });
  return wanted ? MakeLoraAdapter(config, site, rows, options) : nullptr;
}

void AppendParameters(LoraAdapter& adapter, std::vector<Parameter*>& parameters) {
  for (Parameter* parameter : {&adapter.a_RI, &adapter.b_OR, &adapter.m_O}) {
    if (parameter->weight.defined()) parameters.push_back(parameter);
  }
}

at::Tensor AdaptedRows(const LoraAdapter& adapter, const at::Tensor& weight_OI) {
  const at::NoGradGuard no_grad;
  const auto by_expert = [&](const Parameter& factor) { return ByExpert(adapter, factor).to(at::kFloat); };
  const at::Tensor update_OI = at::bmm(by_expert(adapter.b_OR), by_expert(adapter.a_RI)).flatten(0, 1);
  return at::add(weight_OI.narrow(0, adapter.row, adapter.rows).to(at::kFloat), update_OI, adapter.scale);
}

void MergeAdapter(LoraAdapter& adapter, at::Tensor weight_OI) {
  const at::NoGradGuard no_grad;
  TORCH_CHECK(weight_OI.scalar_type() == at::kFloat, "adapters are merged in fp32");
  at::Tensor merged_OI = AdaptedRows(adapter, weight_OI);
  if (adapter.m_O.weight.defined()) merged_OI *= (adapter.m_O.weight / RowLengths(merged_OI)).unsqueeze(1);
  weight_OI.narrow(0, adapter.row, adapter.rows).copy_(merged_OI);
  adapter.b_OR.weight.zero_();
}

void InitMagnitude(LoraAdapter& adapter, const at::Tensor& weight_OI) {
  if (!adapter.m_O.weight.defined()) return;
  StoreMaster({adapter.m_O.name, &adapter.m_O, 0, adapter.rows}, RowLengths(AdaptedRows(adapter, weight_OI)));
}

bool IsPlainUpdate(const LoraAdapter& adapter) { return !adapter.m_O.weight.defined() && !Drops(adapter); }

ops::LowRankUpdate UpdateOf(const LoraAdapter& adapter) {
  return {.a_RI = adapter.a_RI.weight,
          .b_OR = adapter.b_OR.weight,
          .grad_a_RI = adapter.a_RI.gradient,
          .grad_b_OR = adapter.b_OR.gradient,
          .scale = adapter.scale,
          .row = adapter.row};
}

at::Tensor AddLoraOutput(const LoraAdapter& adapter, const AdaptedMap& map, const ops::LinearInput& x_TI,
                         const at::Tensor& y_TO) {
  const bool drops = Drops(adapter);
  const ops::LinearInput in_TI = drops ? at::dropout(x_TI.value, adapter.dropout, /*train=*/true) : x_TI;
  at::Tensor update = ops::Linear(ops::Linear(in_TI, adapter.a_RI.weight, {}, adapter.a_RI.gradient),
                                  adapter.b_OR.weight, {}, adapter.b_OR.gradient)
                          .mul(adapter.scale);
  if (adapter.m_O.weight.defined()) {
    const at::Tensor lengths_O = RowLengths(AdaptedRows(adapter, map.weight_OI)).to(y_TO.scalar_type());
    const at::Tensor ratio_O = adapter.m_O.weight / lengths_O;
    update = update * ratio_O + WithoutBias(adapter, map, in_TI.value, drops, y_TO) * (ratio_O - 1);
  }
  if (adapter.rows == y_TO.size(1)) return y_TO + update;
  const int64_t after = y_TO.size(1) - adapter.row - adapter.rows;
  return y_TO + at::constant_pad_nd(update, {adapter.row, after});
}

at::Tensor GroupedLoraOutput(const LoraAdapter& adapter, const at::Tensor& x_SI, const std::vector<int64_t>& starts) {
  const at::Tensor inner_SR = ops::GroupedLinear(x_SI, ByExpert(adapter, adapter.a_RI), {}, starts);
  return ops::GroupedLinear(inner_SR, ByExpert(adapter, adapter.b_OR), {}, starts).mul(adapter.scale);
}

at::Tensor LookUpLora(const LoraAdapter& adapter, const at::Tensor& tokens_T) {
  const at::NoGradGuard no_grad;
  const at::Tensor rows_TR = ops::EmbeddingLookup(adapter.b_OR.weight, tokens_T);
  return ops::MatMul(rows_TR, adapter.a_RI.weight).mul_(adapter.scale);
}

void LookUpLoraBackward(LoraAdapter& adapter, const at::Tensor& tokens_T, const at::Tensor& grad_TI) {
  const at::NoGradGuard no_grad;
  const at::Tensor scaled_TI = grad_TI * adapter.scale;
  const at::Tensor rows_TR = ops::EmbeddingLookup(adapter.b_OR.weight, tokens_T);
  AccumulateGradient(adapter.a_RI, ops::MatMul(rows_TR.t(), scaled_TI));
  ops::EmbeddingBackward(ops::MatMul(scaled_TI, adapter.a_RI.weight.t()), tokens_T, GradientBuffer(adapter.b_OR));
}

}  // namespace temper
