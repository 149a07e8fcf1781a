// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/native_side.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "worker/model/gradient.h"

// Legend: T tokens of all documents, S those that have a next one, D hidden.

namespace temper {
namespace {

BatchContext MakeContext(const Transformer& model, const std::vector<at::Tensor>& documents) {
  std::vector<at::Tensor> positions;
  std::vector<int64_t> starts = {0};
  for (const at::Tensor& ids : documents) {
    positions.push_back(at::arange(ids.size(0), at::kLong));
    starts.push_back(starts.back() + ids.size(0));
  }
  return model.MakeContext(at::cat(documents), at::cat(positions), starts);
}

at::Tensor ForwardUnits(const Transformer& model, const BatchContext& context, at::Tensor hidden_TD) {
  for (int unit = 0; unit < model.num_units(); ++unit) {
    hidden_TD = model.ForwardUnit(unit, hidden_TD, context, /*routing=*/nullptr);
  }
  return hidden_TD;
}

// Adds the gradients of all parameters. The trainer goes unit by unit to save memory; these documents are short.
void AccumulateGradients(Transformer& model, const std::vector<at::Tensor>& documents) {
  const BatchContext context = MakeContext(model, documents);
  std::vector<at::Tensor> rows, targets;
  for (size_t i = 0; i < documents.size(); ++i) {
    rows.push_back(at::arange(context.document_starts[i], context.document_starts[i + 1] - 1, at::kLong));
    targets.push_back(documents[i].slice(0, 1));
  }
  const at::Tensor rows_S = at::cat(rows);
  const at::Tensor embedded_TD = model.Embed(context).detach().requires_grad_();
  const at::Tensor hidden_SD = model.FinishHidden(ForwardUnits(model, context, embedded_TD).index_select(0, rows_S));
  const at::Tensor coefficient_S = at::full({rows_S.size(0)}, -1.0 / static_cast<double>(rows_S.size(0)), at::kFloat);
  const at::Tensor grad_SD =
      model.head().Backward(hidden_SD.detach(), at::cat(targets), coefficient_S, {}).grad_hidden_SD;

  std::vector<Parameter*> parameters = model.final_parameters();
  for (int unit = 0; unit < model.num_units(); ++unit) {
    parameters.insert(parameters.end(), model.unit_parameters(unit).begin(), model.unit_parameters(unit).end());
  }
  std::vector<at::Tensor> inputs = {embedded_TD};
  for (const Parameter* parameter : parameters) inputs.push_back(parameter->weight);
  const std::vector<at::Tensor> grads = torch::autograd::grad({hidden_SD}, inputs, {grad_SD});
  model.EmbedBackward(context, grads[0]);
  for (size_t i = 0; i < parameters.size(); ++i) AccumulateGradient(*parameters[i], grads[i + 1]);
}

}  // namespace

at::Tensor PackedHidden(Transformer& model, const std::vector<at::Tensor>& documents) {
  const at::NoGradGuard no_grad;
  const BatchContext context = MakeContext(model, documents);
  return model.FinishHidden(ForwardUnits(model, context, model.Embed(context)));
}

std::map<std::string, at::Tensor> PackedGradients(Transformer& model, const TensorMap& map,
                                                  const std::vector<at::Tensor>& documents) {
  ZeroGradients(model.parameters());
  AccumulateGradients(model, documents);
  std::map<std::string, at::Tensor> gradients;
  for (const TensorBinding& binding : map.bindings()) {
    if (binding.optional_copy) continue;
    gradients[binding.hf_name] = JoinTensor(binding, [&](size_t part) {
      const WeightView& view = model.views()[part];
      return GradientBuffer(*view.parameter).narrow(0, view.row, view.rows);
    });
  }
  return gradients;
}

}  // namespace temper
