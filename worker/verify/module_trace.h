// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "worker/families/tensor_rule.h"
#include "worker/model/module_observer.h"
#include "worker/python/hf_reference.h"

namespace temper {

// What one linear map or norm of ours got and gave, by token: [T, …].
struct TracedModule {
  std::string name;  // internal: "layers.0.attn.q"
  at::Tensor input;
  at::Tensor output;
};

// Keeps what the native model's modules compute between Start and Take.
class ModuleTrace : public ModuleObserver {
 public:
  void Start() { recording_ = true; }
  // In the order of execution.
  std::vector<TracedModule> Take();

  void OnModule(const std::string& name, const at::Tensor& input, const at::Tensor& output) override;

 private:
  bool recording_ = false;
  std::vector<TracedModule> modules_;
};

// A module of HF's model and the modules of ours that make it up.
struct HfModule {
  std::string name;                // "model.layers.0.self_attn.qkv_proj"
  std::string layer;               // "model.layers.0"; empty outside of the layers
  std::vector<std::string> parts;  // {"layers.0.attn.q", …}: their outputs side by side are the module's
};

// The modules that the family's rules relate to traced ones, in the order in which ours ran.
std::vector<HfModule> FindHfModules(std::span<const TensorRule> rules, int64_t num_layers,
                                    std::span<const TracedModule> traced);

// The name of HF's embedding.
std::string HfEmbeddingName(std::span<const TensorRule> rules);

// How far a module's input and output are from the reference's, as relative errors (figures.h), and how far they may
// be.
struct ModuleError {
  HfModule module;
  double input = 0;
  double output = 0;
  double input_allowed = 0;
  double output_allowed = 0;
};

// Those of the modules that `reference` has seen too.
std::vector<ModuleError> CompareModules(std::span<const HfModule> modules, std::span<const TracedModule> traced,
                                        const HfTrace& reference);

// Where two models part.
struct Departure {
  std::string module;  // HF's name: of a linear map, a norm, the attention or the layer around it
  std::string what;    // of it
  double error = 0;
};

// The first place, in the order of execution, that is further off than allowed. A module whose input departs, although
// everything before it agrees, is not to blame itself: what lies between is.
std::optional<Departure> FirstDeparture(std::span<const ModuleError> errors, const std::string& embedding);

}  // namespace temper
