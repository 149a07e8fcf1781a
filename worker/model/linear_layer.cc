// SPDX-License-Identifier: Apache-2.0
#include "worker/model/linear_layer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "worker/model/parameter_init.h"
#include "worker/ops/linear.h"

namespace temper {

LinearLayer::LinearLayer(std::string name, std::vector<Part> parts, int64_t in_features, bool bias,
                         const WeightOptions& options)
    : parts_(std::move(parts)), in_features_(in_features), observer_(options.observer) {
  int64_t rows = 0;
  for (const Part& part : parts_) rows += part.rows;
  InitParameter(weight_, name + ".weight", {rows, in_features}, options);
  if (bias) InitParameter(bias_, name + ".bias", {rows}, options);
}

at::Tensor LinearLayer::Forward(const ops::LinearInput& input_TI) const {
  const at::Tensor& x_TI = input_TI.value;
  std::vector<ops::LowRankUpdate> updates;
  for (const auto& adapter : adapters_) {
    if (adapter->enabled && IsPlainUpdate(*adapter)) updates.push_back(UpdateOf(*adapter));
  }
  at::Tensor y_TO = ops::Linear(input_TI, weight_.weight, bias_.weight, weight_.gradient, updates);
  for (const auto& adapter : adapters_) {
    if (!adapter->enabled || IsPlainUpdate(*adapter)) continue;
    y_TO = AddLoraOutput(*adapter, {weight_.weight, bias_.weight}, input_TI, y_TO);
  }
  if (observer_ != nullptr) Observe(x_TI, y_TO);
  return y_TO;
}

void LinearLayer::Observe(const at::Tensor& x_TI, const at::Tensor& y_TO) const {
  int64_t row = 0;
  for (const Part& part : parts_) {
    observer_->OnModule(part.name, x_TI, y_TO.narrow(1, row, part.rows));
    row += part.rows;
  }
}

void LinearLayer::AddLora(const LoraConfig& config) {
  int64_t row = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const auto site = std::find_if(config.sites.begin(), config.sites.end(),
                                   [&](const LoraSite& site) { return site.name == parts_[i].name; });
    if (site != config.sites.end() && i + site->parts <= parts_.size()) {
      int64_t rows = 0;
      for (int64_t part = 0; part < site->parts; ++part) rows += parts_[i + part].rows;
      adapters_.push_back(MakeLoraAdapter(config, site->name, {.row = row, .rows = rows, .in_features = in_features_},
                                          weight_.weight.options()));
    }
    row += parts_[i].rows;
  }
}

void LinearLayer::InitLora() {
  for (const auto& adapter : adapters_) InitMagnitude(*adapter, weight_.weight);
}

void LinearLayer::MergeLora() {
  for (const auto& adapter : adapters_) MergeAdapter(*adapter, weight_.weight);
}

void LinearLayer::AppendParameters(std::vector<Parameter*>& parameters) {
  parameters.push_back(&weight_);
  if (bias_.weight.defined()) parameters.push_back(&bias_);
  for (const auto& adapter : adapters_) temper::AppendParameters(*adapter, parameters);
}

void LinearLayer::AppendViews(std::vector<WeightView>& views) {
  int64_t row = 0;
  for (const Part& part : parts_) {
    views.push_back({part.name + ".weight", &weight_, row, part.rows});
    if (bias_.weight.defined()) views.push_back({part.name + ".bias", &bias_, row, part.rows});
    row += part.rows;
  }
}

void LinearLayer::AppendAdapters(std::vector<LoraAdapter*>& adapters) {
  for (const auto& adapter : adapters_) adapters.push_back(adapter.get());
}

double LinearLayer::ForwardFlopsPerToken(bool adapted) const {
  double weights = static_cast<double>(weight_.weight.numel());
  for (const auto& adapter : adapters_) {
    if (adapted) weights += static_cast<double>(adapter->a_RI.weight.numel() + adapter->b_OR.weight.numel());
  }
  return 2.0 * weights;
}

double LinearLayer::FlopsPerToken(bool input_needs_gradient) const {
  const double products = 1.0 + (input_needs_gradient ? 1 : 0) + (weight_.trainable ? 1 : 0);
  double flops = 2.0 * static_cast<double>(weight_.weight.numel()) * products;
  for (const auto& adapter : adapters_) {
    const double a = static_cast<double>(adapter->a_RI.weight.numel());
    const double b = static_cast<double>(adapter->b_OR.weight.numel());
    flops += 2.0 * a * (input_needs_gradient ? 3 : 2) + 2.0 * b * 3;
  }
  return flops;
}

}  // namespace temper
