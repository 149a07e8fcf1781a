// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace temper {

// Rows [row, row + rows) of a matrix or vector.
struct RowRange {
  int64_t row = 0;
  int64_t rows = 0;
};

struct ShardSlice;

// One matrix or vector of weights, as the model computes with it.
//
// The master value of a trainable weight is fp32 in either precision:
// - fp32 compute: `weight` is the master, `low` is undefined.
// - bf16 compute: master = bits(weight) << 16 + low, as 32-bit integers; `weight` is the master rounded to nearest even
//   and `low` (int16) what the rounding took away. Under adapters a base weight has no `low`: it is never written.
struct Parameter {
  std::string name;
  at::Tensor weight;
  at::Tensor low;
  // fp32, the weight's shape; undefined while no gradient was accumulated.
  at::Tensor gradient;
  bool trainable = true;
  // Norms and biases are not decayed.
  bool decayed = true;
  // Of a trainable parameter: rows that training leaves as they are, in order, none twice.
  std::vector<RowRange> frozen_rows;
  // Where ranks share it (worker/parallel): what this rank has of it. `weight` and `gradient` then have memory only
  // while they are computed with, and `low` is undefined. Null: all of it is here. Owned by who cut it.
  ShardSlice* slice = nullptr;

  // The other rows, in order; none when it is not trainable.
  std::vector<RowRange> trainable_rows() const;
};

// A run of a parameter's elements, in the order of its memory, that is this rank's. Ranks have equal shares of several
// parameters one after another, so that a parameter may be on several of them, and a rank may have nothing of it.
struct ShardSlice {
  Parameter* whole = nullptr;
  int64_t offset = 0;  // of its first element, among those that are shared
  int64_t share = 0;   // elements of each rank
  int64_t begin = 0;   // of the elements of `whole`
  // As a parameter of its own: weights, low parts and gradients are vectors, and frozen_rows count elements.
  Parameter part;

  // The elements of `whole` that a rank has.
  RowRange OfRank(int rank) const;
};

// A named part of a parameter: rows [row, row + rows) of it. Matrices that are used together (q, k, v; gate, up) are
// adjacent rows of one parameter, and padding rows have no name. These names are the same for every family:
//   embed.weight  final_norm.weight  lm_head.weight (only when the head is not tied) or score.weight
//   layers.N.{attn,mlp}_norm.weight  layers.N.{attn,mlp}_post_norm.weight
//   layers.N.attn.{q,k,v,o}.{weight,bias}  layers.N.attn.{q,k}_norm.weight
//   layers.N.attn.sinks
//   layers.N.mlp.{gate,up,down}.{weight,bias}
//   layers.N.mlp.router.{weight,bias}  layers.N.mlp.experts.E.{gate,up,down}.{weight,bias}
struct WeightView {
  std::string name;
  Parameter* parameter = nullptr;  // owned by the model
  int64_t row = 0;
  int64_t rows = 0;

  std::vector<int64_t> shape() const;
};

// Sets the master value of a part. `value` has the view's shape and any floating dtype; it is kept (exactly in fp32
// compute; when trainable in bf16 as master_split.h says: one tie in 131,072 values moves by a unit in the last place)
// or rounded to nearest even (frozen bf16). Where ranks share the parameter, each sets what it has of it, and reads no
// more of `value` than the rows that this lies in.
void StoreMaster(const WeightView& view, const at::Tensor& value);

// Whether this rank has any of a part's master.
bool HasMaster(const WeightView& view);

// The master value of a part as a new fp32 tensor. All of it must be here (worker/parallel/gather_master.h).
at::Tensor LoadMaster(const WeightView& view);

}  // namespace temper
