// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/train_snapshot.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <unordered_map>
#include <utility>

namespace temper {
namespace {

class Copier {
 public:
  // `whole_model`: frozen weights are written too, and the writer reads no GPU.
  Copier(TrainSnapshot& snapshot, bool whole_model) : snapshot_(snapshot), whole_model_(whole_model) {}

  at::Tensor Copy(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    snapshot_.bytes += static_cast<int64_t>(tensor.nbytes());
    return tensor.detach().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
  }

  // A parameter as it is now; `to` is where it lives from then on.
  void CopyParameter(const Parameter& from, Parameter& to) {
    if (from.slice == nullptr) return CopyNumbers(from, to);
    to = from;
    to.gradient = at::Tensor();
    to.weight = from.weight.detach();  // for its shape
    to.slice = &snapshot_.slices.emplace_back(*from.slice);
    to.slice->whole = &to;
    CopyNumbers(from.slice->part, to.slice->part);
    copies_[&from] = &to;
  }

  // Null for one that was not copied.
  Parameter* CopyOf(const Parameter* parameter) const {
    const auto found = copies_.find(parameter);
    return found == copies_.end() ? nullptr : found->second;
  }

 private:
  void CopyNumbers(const Parameter& from, Parameter& to) {
    to = from;
    to.gradient = at::Tensor();
    to.weight = from.trainable ? Copy(from.weight) : Frozen(from.weight.detach());
    to.low = from.trainable ? Copy(from.low) : Frozen(from.low);
    copies_[&from] = &to;
  }

  // They do not change: on the CPU they need no copy.
  at::Tensor Frozen(const at::Tensor& tensor) const { return tensor.defined() && whole_model_ ? tensor.cpu() : tensor; }

  TrainSnapshot& snapshot_;
  const bool whole_model_;
  std::unordered_map<const Parameter*, Parameter*> copies_;
};

}  // namespace

TrainSnapshot TakeSnapshot(const TrainableModel& model, std::span<const Moments> moments,
                           const TrainPosition& position) {
  const at::NoGradGuard no_grad;
  TrainSnapshot snapshot;
  snapshot.position = position;
  Copier copier(snapshot, /*whole_model=*/model.adapters().empty());
  for (const LoraAdapter* adapter : model.adapters()) {
    LoraAdapter& copy = snapshot.adapters.emplace_back();
    copy.site = adapter->site;
    copy.row = adapter->row;
    copy.rows = adapter->rows;
    copy.experts = adapter->experts;
    copy.scale = adapter->scale;
    copier.CopyParameter(adapter->a_RI, copy.a_RI);
    copier.CopyParameter(adapter->b_OR, copy.b_OR);
    if (adapter->m_O.weight.defined()) copier.CopyParameter(adapter->m_O, copy.m_O);
  }
  for (const Parameter* parameter : model.parameters()) {
    if (copier.CopyOf(parameter) == nullptr) copier.CopyParameter(*parameter, snapshot.parameters.emplace_back());
  }
  for (WeightView view : model.views()) {
    view.parameter = copier.CopyOf(view.parameter);
    snapshot.views.push_back(std::move(view));
  }
  for (const Moments& state : moments) {
    snapshot.moments.push_back({copier.CopyOf(state.parameter), copier.Copy(state.first), copier.Copy(state.second)});
  }
  snapshot.rng_state = at::globalContext().defaultGenerator(model.device()).get_state();
  return snapshot;
}

}  // namespace temper
