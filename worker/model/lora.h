// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/model/parameter.h"

namespace temper {

// Where an adapter sits: on adjacent parts of one linear map, as one low-rank update of all their rows.
struct LoraSite {
  std::string name;   // internal name of the first part: "layers.0.attn.q"
  int64_t parts = 1;  // 3: q, k and v are one module in HF's model

  bool operator==(const LoraSite&) const = default;
};

// Low-rank adapters (Hu et al. 2021) on parts of the model's linear maps.
struct LoraConfig {
  int64_t rank = 16;
  double alpha = 32.0;
  // Every one must exist.
  std::vector<LoraSite> sites;
  int64_t seed = 0;
};

// y += scale · B(A x) on rows of a linear map.
struct LoraAdapter {
  std::string site;  // LoraSite::name
  int64_t row = 0;   // rows [row, row + rows) of the map's output
  int64_t rows = 0;
  double scale = 1.0;  // alpha / rank
  Parameter a_RI;      // rank × in, drawn from U(−1/√in, 1/√in) as PEFT does
  Parameter b_OR;      // out × rank, zero at first
};

// A new adapter. Its numbers depend on (seed, site) alone, not on what else is adapted.
std::unique_ptr<LoraAdapter> MakeLoraAdapter(const LoraConfig& config, const std::string& site, int64_t row,
                                             int64_t rows, int64_t in_features, at::ScalarType dtype);

// Adds the adapter's output to columns [row, row + rows) of y_TO, recorded by autograd.
at::Tensor AddLoraOutput(const LoraAdapter& adapter, const at::Tensor& x_TI, const at::Tensor& y_TO);

}  // namespace temper
