// SPDX-License-Identifier: Apache-2.0
#include "worker/model/recompute.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <utility>

namespace temper {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Generator GeneratorOf(const at::Tensor& x) { return at::globalContext().defaultGenerator(x.device()); }

at::Tensor StateOf(at::Generator generator) {
  const std::lock_guard lock(generator.mutex());
  return generator.get_state();
}

// Random numbers go on from `state`, until it is destroyed.
class RandomNumbersFrom {
 public:
  RandomNumbersFrom(at::Generator generator, const at::Tensor& state)
      : generator_(std::move(generator)), before_(StateOf(generator_)) {
    Set(state);
  }
  ~RandomNumbersFrom() { Set(before_); }
  RandomNumbersFrom(const RandomNumbersFrom&) = delete;
  RandomNumbersFrom& operator=(const RandomNumbersFrom&) = delete;

 private:
  void Set(const at::Tensor& state) {
    const std::lock_guard lock(generator_.mutex());
    generator_.set_state(state);
  }

  at::Generator generator_;
  at::Tensor before_;
};

struct Recomputed : torch::CustomClassHolder {
  RecomputedFunction function;
  variable_list weights;
  at::Tensor random_state;
};

class RecomputeFunction : public torch::autograd::Function<RecomputeFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x, at::TensorList weights,
                               const RecomputedFunction& function) {
    auto recomputed = c10::make_intrusive<Recomputed>();
    recomputed->function = function;
    recomputed->weights = weights.vec();
    recomputed->random_state = StateOf(GeneratorOf(x));
    context->save_for_backward({x});
    context->saved_data["recomputed"] = at::IValue::make_capsule(std::move(recomputed));
    // Recorded, as it is in backward: what is dropped depends on it. The record goes at once.
    const at::AutoGradMode recorded(true);
    variable_list results = function(x);
    for (at::Tensor& result : results) result = result.detach();
    return results;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto recomputed =
        c10::static_intrusive_pointer_cast<Recomputed>(context->saved_data["recomputed"].toCapsule());
    const at::AutoGradMode recorded(true);
    const at::Tensor x = context->get_saved_variables()[0].detach().requires_grad_(context->needs_input_grad(0));
    const RandomNumbersFrom as_before(GeneratorOf(x), recomputed->random_state);
    const variable_list results = recomputed->function(x);
    variable_list outputs, grad_outputs, inputs;
    for (size_t i = 0; i < results.size(); ++i) {
      if (!results[i].requires_grad() || !grad[i].defined()) continue;
      outputs.push_back(results[i]);
      grad_outputs.push_back(grad[i]);
    }
    const size_t count = 1 + recomputed->weights.size();
    const auto input = [&](size_t i) { return i == 0 ? x : recomputed->weights[i - 1]; };
    for (size_t i = 0; i < count; ++i) {
      if (context->needs_input_grad(i)) inputs.push_back(input(i));
    }
    const variable_list found = torch::autograd::grad(outputs, inputs, grad_outputs, /*retain_graph=*/std::nullopt,
                                                      /*create_graph=*/false, /*allow_unused=*/true);
    variable_list grads(count + 1);  // the last stands for the function
    size_t next = 0;
    for (size_t i = 0; i < count; ++i) {
      if (context->needs_input_grad(i)) grads[i] = found[next++];
    }
    return grads;
  }
};

}  // namespace

std::vector<at::Tensor> RecomputeInBackward(const RecomputedFunction& function, const at::Tensor& x,
                                            const std::vector<Parameter*>& parameters) {
  variable_list weights;
  for (const Parameter* parameter : parameters) {
    if (parameter->trainable) weights.push_back(parameter->weight);
  }
  return RecomputeFunction::apply(x, at::TensorList(weights), function);
}

}  // namespace temper
