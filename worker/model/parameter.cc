// SPDX-License-Identifier: Apache-2.0
#include "worker/model/parameter.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "worker/model/master_split.h"

namespace temper {
namespace {

// Elements that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 15;

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
  at::Tensor low = RowsOf(view.parameter->low, view);
  const at::Tensor master = value.to(at::kFloat).contiguous();
  const float* from = master.const_data_ptr<float>();
  auto* high_to = reinterpret_cast<uint16_t*>(weight.mutable_data_ptr<at::BFloat16>());
  int16_t* low_to = low.mutable_data_ptr<int16_t>();
  at::parallel_for(0, master.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const MasterSplit split = SplitMaster(from[i]);
      high_to[i] = split.high;
      low_to[i] = split.low;
    }
  });
}

at::Tensor LoadMaster(const WeightView& view) {
  const at::NoGradGuard no_grad;
  const at::Tensor weight = RowsOf(view.parameter->weight, view);
  if (!view.parameter->low.defined()) return weight.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  const at::Tensor low = RowsOf(view.parameter->low, view);
  at::Tensor master = at::empty(weight.sizes(), weight.options().dtype(at::kFloat));
  const auto* high_from = reinterpret_cast<const uint16_t*>(weight.const_data_ptr<at::BFloat16>());
  const int16_t* low_from = low.const_data_ptr<int16_t>();
  float* to = master.mutable_data_ptr<float>();
  at::parallel_for(0, master.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = JoinMaster({high_from[i], low_from[i]});
  });
  return master;
}

}  // namespace temper
