// SPDX-License-Identifier: Apache-2.0
#include "tests/parity/probe_gang.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "tests/worker/parallel/loopback_port.h"
#include "worker/model/gradient.h"
#include "worker/train/step_metrics.h"
#include "worker/train/train_step.h"

namespace temper {

int ProbeRank::WaitForOthers() const {
  int worst = 0;
  for (const pid_t other : others) {
    int status = 0;
    waitpid(other, &status, 0);
    if (status != 0) worst = 1;
  }
  return worst;
}

ProbeRank StartRanks(int world) {
  ProbeRank rank = {.rendezvous = {.size = world}};
  if (world == 1) return rank;
  const LoopbackPort port = ListenOnLoopback();
  rank.rendezvous.port = port.port;
  for (int other = 1; other < world; ++other) {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(port.listen_fd);
      rank.rendezvous.rank = other;
      rank.others.clear();
      return rank;
    }
    rank.others.push_back(child);
  }
  rank.rendezvous.listen_fd = port.listen_fd;
  return rank;
}

void NudgeWeights(const std::vector<Parameter*>& parameters) {
  for (Parameter* parameter : parameters) {
    for (const RowRange& rows : parameter->trainable_rows()) {
      const WeightView view = {parameter->name, parameter, rows.row, rows.rows};
      StoreMaster(view, LoadMaster(view) * 1.003 + 0.01);
    }
  }
}

ProbeGang::ProbeGang(const ProbeRank& rank, TrainableModel& model, const ShardingOptions& options) : model_(model) {
  if (rank.rendezvous.size == 1) return;
  at::set_num_threads(1);  // ranks share the cores
  auto group = ProcessGroup::Connect(rank.rendezvous);
  if (!group.ok()) {
    std::fprintf(stderr, "parity_probe: %s\n", std::string(group.status().message()).c_str());
    std::exit(1);
  }
  group_ = *std::move(group);
  sharded_ = std::make_unique<ShardedModel>(model, *group_, options);
}

void ProbeGang::Shard(TrainableModel& other) {
  if (group_ != nullptr) other_ = std::make_unique<ShardedModel>(other, *group_);
}

const std::vector<Parameter*>& ProbeGang::parameters() const {
  return sharded_ == nullptr ? model_.parameters() : sharded_->parameters();
}

std::vector<double> ProbeGang::Sums(const std::vector<double>& values) {
  if (group_ == nullptr) return values;
  std::vector<double> sums(values.size(), 0.0);
  for (const std::vector<double>& of_rank : group_->AllGatherValues(values)) {
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += of_rank[i];
  }
  return sums;
}

StepShare ProbeGang::ForwardBackward(const std::vector<MicroBatch>& batches, const Objective& objective) {
  const size_t world = group_ == nullptr ? 1 : group_->size();
  const MicroBatch nothing;
  double normalizer = 0;
  for (const MicroBatch& batch : batches) normalizer += objective.Count(batch);
  StepShare share = {.sums = std::vector<double>(objective.num_sums())};
  for (size_t first = 0; first < batches.size(); first += world) {
    const size_t mine = first + rank();
    share += temper::ForwardBackward(model_, mine < batches.size() ? batches[mine] : nothing, objective, normalizer);
  }
  return {Sums({share.loss})[0], Sums(share.sums), share.maxima};
}

double ProbeGang::GradientNorm() {
  const double norm = GlobalGradientNorm(parameters());
  return group_ == nullptr ? norm : std::sqrt(Sums({norm * norm})[0]);
}

template <typename Of>
std::map<Parameter*, at::Tensor> ProbeGang::Together(Of of) {
  std::map<Parameter*, at::Tensor> wholes;
  for (Parameter* parameter : model_.parameters()) {
    const int64_t size = parameter->weight.numel();
    const at::Tensor mine = at::zeros({size}), all = at::empty({size * group_->size()});
    for (ShardSlice* slice : sharded_->slices()) {
      if (slice->whole != parameter) continue;
      if (const at::Tensor values = of(slice->part); values.defined()) {
        mine.narrow(0, slice->begin, values.numel()).copy_(values);
      }
    }
    group_->AllGather(mine, all).Wait();
    wholes[parameter] = all.view({group_->size(), size}).sum(0).view(parameter->weight.sizes());
  }
  return wholes;
}

void ProbeGang::BringGradientsTogether() {
  if (group_ == nullptr) return;
  for (const auto& [parameter, whole] : Together([](const Parameter& part) { return part.gradient; })) {
    parameter->gradient = whole;
  }
}

void ProbeGang::BringWeightsTogether() {
  if (group_ == nullptr) return;
  const auto master = [](Parameter& part) { return LoadMaster({part.name, &part, 0, part.weight.size(0)}); };
  for (const auto& [parameter, whole] : Together([&](Parameter& part) { return master(part); })) {
    parameter->weight = whole;
    parameter->slice = nullptr;  // it is whole again
  }
}

std::map<std::string, at::Tensor> ProbeGang::Figures() {
  const auto scalar = [](int64_t value) { return at::full({1}, static_cast<double>(value), at::kDouble); };
  const auto bytes = [](const std::vector<Parameter*>& parameters) {
    int64_t sum = 0;
    for (const Parameter* parameter : parameters) sum += static_cast<int64_t>(parameter->weight.nbytes());
    return sum;
  };
  std::vector<double> peaks = {static_cast<double>(PeakMemoryBytes())};
  const int64_t sent = group_ == nullptr ? 0 : group_->bytes_sent();
  if (group_ != nullptr) {
    const std::vector<std::vector<double>> of_ranks = group_->AllGatherValues(peaks);
    peaks.clear();
    for (const auto& of_rank : of_ranks) peaks.push_back(of_rank[0]);
  }
  return {{"bytes_sent", scalar(sent)},
          {"peak_bytes", at::tensor(at::ArrayRef<double>(peaks), at::TensorOptions(at::kDouble))},
          {"whole_bytes", scalar(bytes(model_.parameters()))},
          {"kept_bytes", scalar(bytes(parameters()))}};
}

}  // namespace temper
