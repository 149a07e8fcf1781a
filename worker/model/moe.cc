// SPDX-License-Identifier: Apache-2.0
#include "worker/model/moe.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "worker/model/parameter_init.h"
#include "worker/ops/gated_activation.h"
#include "worker/ops/grouped_linear.h"
#include "worker/ops/linear.h"

// Legend: T tokens, D hidden, E experts, k experts of a token, S = T · k rows that experts work on, sorted by expert.

namespace temper {

MixtureOfExperts::MixtureOfExperts(const std::string& name, const ModelConfig& config, const WeightOptions& options)
    : name_(name), config_(config.moe), observer_(options.observer) {
  const int64_t hidden = config.hidden_size, inner = config_.intermediate_size;
  InitParameter(router_weight_, name + ".router.weight", {config_.num_experts, hidden}, options);
  if (config_.bias) {
    InitParameter(router_bias_, name + ".router.bias", {config_.num_experts}, options);
  }
  gate_up_ = MakeExperts(name + ".experts.gate_up", 2 * inner, hidden, options);
  down_ = MakeExperts(name + ".experts.down", hidden, inner, options);
}

MixtureOfExperts::Experts MixtureOfExperts::MakeExperts(const std::string& name, int64_t out, int64_t in,
                                                        const WeightOptions& options) const {
  Experts experts;
  experts.out = out;
  const int64_t rows = config_.num_experts * out;
  InitParameter(experts.weight, name + ".weight", {rows, in}, options);
  if (config_.bias) InitParameter(experts.bias, name + ".bias", {rows}, options);
  return experts;
}

at::Tensor MixtureOfExperts::Experts::Forward(const at::Tensor& x_SI, const std::vector<int64_t>& starts) const {
  const auto by_expert = [&](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.unflatten(0, {-1, out}) : tensor;
  };
  const at::Tensor y_SO =
      ops::GroupedLinear(x_SI, by_expert(weight.weight), by_expert(bias.weight), starts, by_expert(weight.gradient));
  return adapter == nullptr || !adapter->enabled ? y_SO : y_SO + GroupedLoraOutput(*adapter, x_SI, starts);
}

MixtureOfExperts::Choice MixtureOfExperts::Route(const at::Tensor& x_TD, Routing* routing) const {
  const at::Tensor logits_TE = ops::Linear(x_TD, router_weight_.weight, router_bias_.weight).to(at::kFloat);
  if (observer_ != nullptr) observer_->OnModule(name_ + ".router", x_TD, logits_TE);
  const at::Tensor probabilities_TE = logits_TE.softmax(-1);
  auto [chosen_Tk, experts_Tk] = (config_.softmax_over_chosen ? logits_TE : probabilities_TE).topk(config_.top_k, -1);
  if (config_.softmax_over_chosen) {
    chosen_Tk = chosen_Tk.softmax(-1);
  } else if (config_.normalized) {
    chosen_Tk = chosen_Tk / chosen_Tk.sum(-1, /*keepdim=*/true);
  }
  if (routing != nullptr && config_.balance_coefficient > 0) {
    routing->probabilities_TE = probabilities_TE;
    routing->tokens_E = at::bincount(experts_Tk.flatten(), /*weights=*/{}, config_.num_experts);
  }
  return {chosen_Tk, experts_Tk};
}

at::Tensor MixtureOfExperts::Forward(const at::Tensor& x_TD, Routing* routing) const {
  const Choice choice = Route(x_TD, routing);
  const at::Tensor experts_S = choice.experts_Tk.flatten();
  // Stable: the same order on every machine.
  const at::Tensor order_S = std::get<1>(experts_S.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false));
  const at::Tensor counts_E = at::bincount(experts_S, /*weights=*/{}, config_.num_experts).to(at::kCPU);
  std::vector<int64_t> starts = {0};
  for (int64_t expert = 0; expert < config_.num_experts; ++expert) {
    starts.push_back(starts.back() + counts_E.const_data_ptr<int64_t>()[expert]);
  }
  const at::Tensor x_SD = x_TD.index_select(0, order_S.floor_divide(config_.top_k));
  const at::Tensor inner_SF = ops::GatedActivation(gate_up_.Forward(x_SD, starts), config_.activation);
  const at::Tensor y_SD = down_.Forward(inner_SF, starts);

  // Back into the order of the tokens: there each is the sum of its k rows.
  const at::Tensor back_S =
      at::empty_like(order_S).scatter_(0, order_S, at::arange(order_S.size(0), order_S.options()));
  const at::Tensor y_TkD = y_SD.index_select(0, back_S).unflatten(0, {-1, config_.top_k});
  const at::Tensor out_TD = (y_TkD * choice.weights_Tk.unsqueeze(-1)).sum(1).to(x_TD.scalar_type());
  if (observer_ != nullptr) observer_->OnModule(name_ + ".experts", x_TD, out_TD);
  return out_TD;
}

void MixtureOfExperts::AddLora(const LoraConfig& config, std::vector<LoraAdapter*>& adapters) {
  const auto add = [&](const char* kind, Experts& experts) {
    const at::Tensor& weight = experts.weight.weight;
    const LoraRows rows = {.rows = weight.size(0), .in_features = weight.size(1), .experts = config_.num_experts};
    experts.adapter = MakeLoraAdapterAt(config, name_ + ".experts." + kind, rows, weight.options());
    if (experts.adapter != nullptr) adapters.push_back(experts.adapter.get());
  };
  add("gate_up", gate_up_);
  add("down", down_);
}

void MixtureOfExperts::MergeLora() {
  for (Experts* experts : {&gate_up_, &down_}) {
    if (experts->adapter == nullptr) continue;
    MergeAdapter(*experts->adapter, experts->weight.weight);
    experts->weight.trainable = true;  // it is no longer the source's: an export must not leave that packed
  }
}

void MixtureOfExperts::AppendParameters(std::vector<Parameter*>& parameters) {
  for (Parameter* parameter :
       {&router_weight_, &router_bias_, &gate_up_.weight, &gate_up_.bias, &down_.weight, &down_.bias}) {
    if (parameter->weight.defined()) parameters.push_back(parameter);
  }
  for (Experts* experts : {&gate_up_, &down_}) {
    if (experts->adapter != nullptr) temper::AppendParameters(*experts->adapter, parameters);
  }
}

void MixtureOfExperts::AppendViews(std::vector<WeightView>& views) {
  for (Parameter* router : {&router_weight_, &router_bias_}) {
    if (router->weight.defined()) views.push_back({router->name, router, 0, config_.num_experts});
  }
  const auto append = [&](int64_t expert, const char* part, Experts& experts, int64_t row, int64_t rows) {
    const std::string name = absl::StrCat(name_, ".experts.", expert, ".", part);
    row += expert * experts.out;
    views.push_back({name + ".weight", &experts.weight, row, rows});
    if (experts.bias.weight.defined()) views.push_back({name + ".bias", &experts.bias, row, rows});
  };
  for (int64_t expert = 0; expert < config_.num_experts; ++expert) {
    append(expert, "gate", gate_up_, 0, config_.intermediate_size);
    append(expert, "up", gate_up_, config_.intermediate_size, config_.intermediate_size);
    append(expert, "down", down_, 0, down_.out);
  }
}

double MixtureOfExperts::FlopsOf(const Experts& experts, bool forward_alone, bool adapted) const {
  const double share = static_cast<double>(config_.top_k) / static_cast<double>(config_.num_experts);
  const auto flops = [&](const Parameter& parameter) { return FlopsOf(parameter, forward_alone); };
  double all = flops(experts.weight);
  if (adapted && experts.adapter != nullptr) all += flops(experts.adapter->a_RI) + flops(experts.adapter->b_OR);
  return share * all;
}

double MixtureOfExperts::FlopsOf(const Parameter& parameter, bool forward_alone) {
  const double products = forward_alone ? 1 : parameter.trainable ? 3 : 2;
  return 2.0 * static_cast<double>(parameter.weight.numel()) * products;
}

double MixtureOfExperts::FlopsPerToken() const {
  return FlopsOf(router_weight_, false) + FlopsOf(gate_up_, false, true) + FlopsOf(down_, false, true);
}

double MixtureOfExperts::ForwardFlopsPerToken(bool adapted) const {
  return FlopsOf(router_weight_, true) + FlopsOf(gate_up_, true, adapted) + FlopsOf(down_, true, adapted);
}

}  // namespace temper
