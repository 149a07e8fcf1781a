// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/model/parameter.h"
#include "worker/ops/linear.h"

namespace temper {

// Where an adapter sits: on adjacent parts of one linear map, as one low-rank update of all their rows; on the
// embedding or the LM head, a row a token; on the matrices of one kind of all experts of a layer, an update an expert.
struct LoraSite {
  // Internal name of the first part: "layers.0.attn.q", "embed", "lm_head", "layers.0.mlp.experts.gate_up".
  std::string name;
  int64_t parts = 1;  // 3: q, k and v are one module in HF's model

  bool operator==(const LoraSite&) const = default;
};

// Low-rank adapters (Hu et al. 2021) on parts of the model's linear maps.
struct LoraConfig {
  int64_t rank = 16;
  double alpha = 32.0;
  bool rslora = false;   // the update is scaled by alpha / √rank (Kalajdzievski 2023) instead of alpha / rank
  double dropout = 0.0;  // of an adapter's input, while it is trained
  bool dora = false;     // the lengths of the rows are trained apart from their directions (Liu et al. 2024)
  // Every one must exist.
  std::vector<LoraSite> sites;
  // Of a tied head: the embedding's adapter is the head's as well. Without, either may have one of its own, though
  // their matrix is one.
  bool tied_head = false;
  int64_t seed = 0;
};

// y += scale · B(A dropout(x)) on rows of a linear map. DoRA: instead of W x, these rows become m · (W + scale·B·A) x,
// each row of the sum divided by its length, which counts as a constant on the way back.
struct LoraAdapter {
  std::string site;  // LoraSite::name
  int64_t row = 0;   // rows [row, row + rows) of the map's output
  int64_t rows = 0;
  bool enabled = true;  // off: the map is as if there were no adapter; only where nothing is recorded (WithoutAdapters)
  int64_t experts = 1;  // of each the factors lie below those of the one before: a_RI is (experts · rank) × in
  double scale = 1.0;
  double dropout = 0.0;
  int64_t seed = 0;
  Parameter a_RI;  // rank × in, drawn from U(−1/√in, 1/√in) as PEFT does
  Parameter b_OR;  // out × rank, zero at first
  Parameter m_O;   // DoRA: the rows' lengths; its tensor is undefined without

  int64_t rank() const { return b_OR.weight.size(1); }
};

// The rows of a map that an adapter is for.
struct LoraRows {
  int64_t row = 0;
  int64_t rows = 0;  // of all experts
  int64_t in_features = 0;
  int64_t experts = 1;
};

// A new adapter of this dtype, on this device; on the device meta, its shapes.
std::unique_ptr<LoraAdapter> MakeLoraAdapter(const LoraConfig& config, const std::string& site, const LoraRows& rows,
                                             const at::TensorOptions& options);

// The same where the config has a site of that name; null otherwise.
std::unique_ptr<LoraAdapter> MakeLoraAdapterAt(const LoraConfig& config, const std::string& site, const LoraRows& rows,
                                               const at::TensorOptions& options);

// Gives A the numbers that a new adapter has. They depend on (seed, site) alone, not on what else is adapted.
void DrawFactors(LoraAdapter& adapter);

// A, B and, with DoRA, m.
void AppendParameters(LoraAdapter& adapter, std::vector<Parameter*>& parameters);

// The linear map that an adapter sits on: all of its rows.
struct AdaptedMap {
  const at::Tensor& weight_OI;
  const at::Tensor& bias_O;  // undefined without a bias
};

// W + scale·B·A of the adapter's rows, in fp32; nothing is recorded.
at::Tensor AdaptedRows(const LoraAdapter& adapter, const at::Tensor& weight_OI);

// Puts the adapter into the weight, fp32, and makes its update zero: the same map without it.
void MergeAdapter(LoraAdapter& adapter, at::Tensor weight_OI);

// Gives DoRA's m the lengths that the rows have: the adapter changes nothing, if B is zero.
void InitMagnitude(LoraAdapter& adapter, const at::Tensor& weight_OI);

// Whether the adapter does no more to a linear map than ops::LowRankUpdate says: no DoRA, and nothing is dropped now.
bool IsPlainUpdate(const LoraAdapter& adapter);
ops::LowRankUpdate UpdateOf(const LoraAdapter& adapter);

// Adds the adapter's output to columns [row, row + rows) of y_TO = W x + b, recorded by autograd. Where nothing is
// recorded, nothing is trained and nothing dropped. What is dropped is drawn from torch's default generator, whose
// state is a part of every checkpoint.
at::Tensor AddLoraOutput(const LoraAdapter& adapter, const AdaptedMap& map, const ops::LinearInput& x_TI,
                         const at::Tensor& y_TO);

// What adapters on experts add, [S, out]: a row of x_SI goes through the adapter of its expert, whose rows are
// [starts[e], starts[e + 1]) (ops::GroupedLinear). Recorded by autograd; nothing is dropped.
at::Tensor GroupedLoraOutput(const LoraAdapter& adapter, const at::Tensor& x_SI, const std::vector<int64_t>& starts);

// What an adapter on an embedding adds to the rows of these tokens (int64): scale · B[token]·A, [T, in]. Not recorded
// by autograd, and nothing is dropped.
at::Tensor LookUpLora(const LoraAdapter& adapter, const at::Tensor& tokens_T);

// Adds the gradients of A and B, given that of the rows.
void LookUpLoraBackward(LoraAdapter& adapter, const at::Tensor& tokens_T, const at::Tensor& grad_TI);

}  // namespace temper
