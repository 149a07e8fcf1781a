// SPDX-License-Identifier: Apache-2.0
#include "worker/model/parameter.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/ops/split_masters.h"

namespace temper {
namespace {

at::Tensor RowsOf(const at::Tensor& tensor, const WeightView& view) {
  return tensor.detach().narrow(0, view.row, view.rows);
}

int64_t RowElements(const Parameter& parameter) {
  return std::max<int64_t>(1, parameter.weight.numel() / parameter.weight.size(0));
}

// The elements of a view that this rank has, as elements of the parameter.
RowRange HereOf(const ShardSlice& slice, const WeightView& view) {
  const int64_t columns = RowElements(*slice.whole), first = view.row * columns;
  const int64_t from = std::max(first, slice.begin);
  const int64_t to = std::min(first + view.rows * columns, slice.begin + slice.part.weight.numel());
  return {from, std::max<int64_t>(0, to - from)};
}

void StoreSlice(ShardSlice& slice, const WeightView& view, const at::Tensor& value) {
  const auto [from, count] = HereOf(slice, view);
  if (count == 0) return;
  const int64_t columns = RowElements(*slice.whole), in_view = from - view.row * columns;
  const int64_t row = in_view / columns, end_row = (in_view + count + columns - 1) / columns;
  const at::Tensor rows = value.narrow(0, row, end_row - row).reshape(-1);
  StoreMaster({view.name, &slice.part, from - slice.begin, count}, rows.narrow(0, in_view - row * columns, count));
}

}  // namespace

RowRange ShardSlice::OfRank(int rank) const {
  const int64_t elements = whole->weight.numel();
  const int64_t from = std::clamp<int64_t>(rank * share - offset, 0, elements);
  const int64_t to = std::min(elements, (rank + 1) * share - offset);
  return {from, std::max<int64_t>(0, to - from)};
}

std::vector<RowRange> Parameter::trainable_rows() const {
  std::vector<RowRange> ranges;
  if (!trainable) return ranges;
  int64_t next = 0;
  const auto until = [&](int64_t end) {
    if (end > next) ranges.push_back({next, end - next});
  };
  for (const RowRange& frozen : frozen_rows) {
    until(frozen.row);
    next = frozen.row + frozen.rows;
  }
  until(weight.size(0));
  return ranges;
}

std::vector<int64_t> WeightView::shape() const {
  std::vector<int64_t> shape = parameter->weight.sizes().vec();
  shape[0] = rows;
  return shape;
}

void StoreMaster(const WeightView& view, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  TORCH_CHECK(value.sizes() == at::IntArrayRef(view.shape()), view.name, " has shape ", at::IntArrayRef(view.shape()),
              ", its new value has ", value.sizes());
  if (view.parameter->slice != nullptr) return StoreSlice(*view.parameter->slice, view, value);
  at::Tensor weight = RowsOf(view.parameter->weight, view);
  if (!view.parameter->low.defined()) {
    weight.copy_(value);
    return;
  }
  ops::SplitMasters(value.to(at::kFloat).contiguous(), weight, RowsOf(view.parameter->low, view));
}

bool HasMaster(const WeightView& view) {
  return view.parameter->slice == nullptr || HereOf(*view.parameter->slice, view).rows > 0;
}

at::Tensor LoadMaster(const WeightView& view) {
  const at::NoGradGuard no_grad;
  TORCH_CHECK(view.parameter->slice == nullptr, view.name, " is on several ranks");
  const at::Tensor weight = RowsOf(view.parameter->weight, view);
  if (!view.parameter->low.defined()) return weight.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  return ops::JoinMasters(weight, RowsOf(view.parameter->low, view));
}

}  // namespace temper
