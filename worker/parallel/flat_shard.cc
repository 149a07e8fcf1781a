// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/flat_shard.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace temper {
namespace {

constexpr int64_t kAlignment = 32;  // elements: 64 bytes of bf16

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Frozen rows of a parameter as elements of [begin, end).
std::vector<RowRange> FrozenElements(const Parameter& parameter, int64_t begin, int64_t end) {
  const int64_t columns = parameter.weight.numel() / parameter.weight.size(0);
  std::vector<RowRange> elements;
  for (const RowRange& rows : parameter.frozen_rows) {
    const int64_t from = std::max(begin, rows.row * columns);
    const int64_t to = std::min(end, (rows.row + rows.rows) * columns);
    if (from < to) elements.push_back({from - begin, to - from});
  }
  return elements;
}

}  // namespace

FlatShard::FlatShard(std::string unit, const std::vector<Parameter*>& parameters, ProcessGroup& group,
                     at::Device device, BufferPool* pool)
    : unit_(std::move(unit)), group_(group), trainable_(parameters.front()->trainable) {
  const at::NoGradGuard no_grad;
  std::vector<Place> places;
  int64_t size = 0;
  for (Parameter* parameter : parameters) {
    places.push_back({parameter, size});
    size += RoundUp(parameter->weight.numel(), kAlignment);
  }
  share_ = RoundUp((size + group.size() - 1) / group.size(), kAlignment);

  const at::TensorOptions options = parameters.front()->weight.options().device(device).requires_grad(false);
  const at::TensorOptions fp32 = options.dtype(at::kFloat);
  weight_share_ = at::zeros({share_}, options);
  if (trainable_) gradient_share_ = at::zeros({share_}, fp32);
  if (std::ranges::any_of(parameters, [](const Parameter* each) { return each->low.defined(); })) {
    low_share_ = at::zeros({share_}, options.dtype(at::kShort));
  }
  weights_.emplace(num_elements(), options, pool);
  if (trainable_) {
    gradients_.emplace(num_elements(), fp32, pool);
    received_.emplace(num_elements(), fp32, pool);
  }
  for (const Place& place : places) {
    Parameter& parameter = *place.parameter;
    AddSlice(place);
    parameter.weight = weights_->TensorAt(place.offset, parameter.weight.sizes()).requires_grad_(trainable_);
    parameter.low = at::Tensor();
    parameter.gradient = trainable_ ? gradients_->TensorAt(place.offset, parameter.weight.sizes()) : at::Tensor();
  }
}

void FlatShard::AddSlice(const Place& place) {
  Parameter& whole = *place.parameter;
  ShardSlice& slice = slices_.emplace_back();
  slice.whole = &whole;
  slice.offset = place.offset;
  slice.share = share_;
  const auto [begin, elements] = slice.OfRank(group_.rank());
  slice.begin = begin;
  const int64_t at = elements > 0 ? place.offset + begin - group_.rank() * share_ : 0;
  const auto here = [&](const at::Tensor& share) {
    return share.defined() ? share.narrow(0, at, elements) : at::Tensor();
  };
  slice.part = {.name = whole.name,
                .weight = here(weight_share_),
                .low = whole.low.defined() ? here(low_share_) : at::Tensor(),
                .gradient = here(gradient_share_),
                .trainable = whole.trainable,
                .decayed = whole.decayed,
                .frozen_rows = FrozenElements(whole, begin, begin + elements)};
  if (!whole.weight.is_meta()) {
    const auto from = [&](const at::Tensor& values) { return values.view(-1).narrow(0, begin, elements); };
    slice.part.weight.copy_(from(whole.weight));
    if (slice.part.low.defined()) slice.part.low.copy_(from(whole.low));
  }
  whole.slice = &slice;
}

void FlatShard::StartGather() {
  if (weights_->is_open()) return;
  weights_->Open();
  gathering_ = group_.AllGather(weight_share_, weights_->flat(), unit_);
}

void FlatShard::FinishGather() {
  StartGather();
  gathering_.Wait();
}

void FlatShard::Release() { weights_->Close(); }

void FlatShard::Keep() {
  const at::NoGradGuard no_grad;
  TORCH_CHECK(!low_share_.defined(), "weights in two halves can't be taken over");
  weight_share_.copy_(weights_->flat().narrow(0, group_.rank() * share_, share_));
}

void FlatShard::BeginGradients() {
  if (!trainable_ || gradients_->is_open()) return;
  gradients_->Open();
  gradients_->flat().zero_();
}

void FlatShard::StartReduce() {
  if (!trainable_) return;
  received_->Open();
  reducing_ = group_.AllToAll(gradients_->flat(), received_->flat(), unit_);
  reduces_ = true;
}

void FlatShard::FinishReduce() {
  if (!std::exchange(reduces_, false)) return;
  const at::NoGradGuard no_grad;
  reducing_.Wait();
  for (int rank = 0; rank < group_.size(); ++rank) {
    const at::Tensor& from = rank == group_.rank() ? gradients_->flat() : received_->flat();
    gradient_share_.add_(from.narrow(0, rank * share_, share_));
  }
  received_->Close();
  gradients_->Close();
}

}  // namespace temper
