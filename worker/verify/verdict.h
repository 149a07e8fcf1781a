// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "worker/verify/figures.h"
#include "worker/verify/layer_range.h"
#include "worker/verify/module_trace.h"

namespace temper {

// How far apart native model and reference may be. HF: Hugging Face's transformers.
inline constexpr double kMaxKl = 1e-8;           // fp32, at every position
inline constexpr double kMaxKlOfExperts = 1e-7;  // the same, where a router chooses
inline constexpr double kMaxLogitError = 2e-5;   // fp32, at every position
inline constexpr double kMaxGradientError = 1e-4;
// A gradient's error is relative to its norm, or to this share of the norm of all gradients when that is more.
inline constexpr double kGradientFloor = 1e-5;
// bf16, both against HF in fp32: how much worse than HF in bf16 the native model may be.
inline constexpr double kMaxMeanKlRatio = 1.25;
inline constexpr double kMaxPeakKlRatio = 3.0;
inline constexpr int64_t kMinBf16Positions = 4096;
// A module's input or output departs when its relative error is larger: in fp32; in bf16, times HF's own, and at least.
inline constexpr double kMaxModuleError = 2e-5;
inline constexpr double kMaxModuleRatio = 3.0;
inline constexpr double kLeastBf16ModuleError = 1e-2;

// Logits of one set of documents.
struct LogitCheck {
  std::string ids;     // "random", "text"
  std::string layout;  // "packed": ours in one row. "padded": HF's in one batch
  LogitFigures native;
  std::optional<LogitFigures> hf_bf16;  // HF in bf16 on the same documents; with dtype bf16
  // bf16, with experts: positions at which ours or HF's bf16 chose other experts than the fp32 reference in some layer.
  // The figures are of the others.
  int64_t routing_flips = 0;
};

struct LayerReport {
  std::vector<ModuleError> modules;
  std::optional<Departure> departure;
};

struct GradientError {
  std::string tensor;
  double error = 0;
};

struct GradientReport {
  std::vector<GradientError> errors;   // the largest first
  std::vector<std::string> unmatched;  // tensors that only one side has a gradient for
};

// What came out of a comparison of the native model with HF's own.
struct Verdict {
  std::string model;                    // the directory
  std::string family;                   // "llama"
  std::string architecture;             // "LlamaForCausalLM"
  std::vector<std::string> mechanisms;  // worker/model/mechanisms.h
  std::string dtype;                    // "fp32", "bf16"
  LayerRange layers_of;                 // what of the model was compared
  bool experts = false;                 // some layers are mixtures of experts
  std::vector<LogitCheck> logits;
  std::optional<LayerReport> layers;
  std::optional<GradientReport> gradients;
  // Mechanisms that no document was long enough for.
  std::vector<std::string> not_exercised;
  // Each bound that was not kept; empty when the model passes.
  std::vector<std::string> reasons;

  bool passed() const { return reasons.empty(); }
};

// The error of every tensor that both sides have a gradient for.
GradientReport CompareGradientSets(const std::map<std::string, at::Tensor>& expected,
                                   const std::map<std::string, at::Tensor>& actual);

// Compares the figures with the bounds above: what goes into Verdict::reasons. Modules alone never fail a model, they
// show where to look.
std::vector<std::string> Judge(const Verdict& verdict);

nlohmann::ordered_json ToJson(const Verdict& verdict);

// For people.
void PrintTable(const Verdict& verdict, std::ostream& out);

}  // namespace temper
