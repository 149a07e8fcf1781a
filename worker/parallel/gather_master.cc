// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/gather_master.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace temper {
namespace {

// What a rank has of the elements of a view.
RowRange InView(const ShardSlice& slice, int rank, const RowRange& view) {
  const RowRange has = slice.OfRank(rank);
  const int64_t from = std::max(has.row, view.row), to = std::min(has.row + has.rows, view.row + view.rows);
  return {from, std::max<int64_t>(0, to - from)};
}

// LoadMaster, but without a copy where the weight is the master.
at::Tensor ReadMaster(const WeightView& view) {
  const Parameter& parameter = *view.parameter;
  const bool is_master =
      parameter.slice == nullptr && !parameter.low.defined() && parameter.weight.scalar_type() == at::kFloat;
  return is_master ? parameter.weight.detach().narrow(0, view.row, view.rows) : LoadMaster(view);
}

}  // namespace

at::Tensor PendingMaster::Wait() {
  pending_.Wait();
  return std::move(value_);
}

PendingMaster StartGatherMaster(const WeightView& view, ProcessGroup* ranks, int to) {
  PendingMaster master;
  if (ranks == nullptr) {
    master.value_ = ReadMaster(view);
    return master;
  }
  TORCH_CHECK(view.parameter->slice != nullptr, view.name, " is not shared between ranks");
  ShardSlice& slice = *view.parameter->slice;
  const int64_t columns = slice.whole->weight.numel() / slice.whole->weight.size(0);
  const RowRange elements = {view.row * columns, view.rows * columns};
  const RowRange here = InView(slice, ranks->rank(), elements);
  at::Tensor mine;
  if (here.rows > 0) mine = ReadMaster({view.name, &slice.part, here.row - slice.begin, here.rows});
  std::vector<at::Tensor> parts;
  if (to == ProcessGroup::kAll || to == ranks->rank()) {
    const at::Tensor flat = at::empty({elements.rows}, slice.part.weight.options().dtype(at::kFloat));
    for (int rank = 0; rank < ranks->size(); ++rank) {
      const auto [from, count] = InView(slice, rank, elements);
      parts.push_back(count > 0 ? flat.narrow(0, from - elements.row, count) : at::Tensor());
    }
    if (mine.defined()) parts[ranks->rank()].copy_(mine);
    master.value_ = flat.view(view.shape());
  }
  master.pending_ = ranks->Gather(mine, parts, to);
  return master;
}

at::Tensor GatherMaster(const WeightView& view, ProcessGroup* ranks, int to) {
  return StartGatherMaster(view, ranks, to).Wait();
}

}  // namespace temper
