// SPDX-License-Identifier: Apache-2.0
#include "worker/model/parameter.h"

#include <ATen/ATen.h>

#include "worker/ops/split_masters.h"

namespace temper {
namespace {

at::Tensor RowsOf(const at::Tensor& tensor, const WeightView& view) {
  return tensor.detach().narrow(0, view.row, view.rows);
}

}  // namespace

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
  at::Tensor weight = RowsOf(view.parameter->weight, view);
  if (!view.parameter->low.defined()) {
    weight.copy_(value);
    return;
  }
  ops::SplitMasters(value.to(at::kFloat).contiguous(), weight, RowsOf(view.parameter->low, view));
}

at::Tensor LoadMaster(const WeightView& view) {
  const at::NoGradGuard no_grad;
  const at::Tensor weight = RowsOf(view.parameter->weight, view);
  if (!view.parameter->low.defined()) return weight.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  return ops::JoinMasters(weight, RowsOf(view.parameter->low, view));
}

}  // namespace temper
