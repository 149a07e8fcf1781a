// SPDX-License-Identifier: Apache-2.0
// Collectives between GPUs, a rank on each: what the same ones on the CPU give. Not run yet on more than one GPU.
#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/worker/parallel/gang.h"

namespace temper {
namespace {

void RunGangOfGpus(const std::function<void(ProcessGroup&, at::Device)>& rank) {
  const auto gpus = static_cast<int>(at::detail::getCUDAHooks().deviceCount());
  RunGang(
      std::min(gpus, 4), [](int index) { return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index)); },
      [&](ProcessGroup& group) { rank(group, at::Device(at::kCUDA, static_cast<at::DeviceIndex>(group.rank()))); });
}

TEST(Nccl, AllGather_PutsEveryRanksPartInItsPlace) {
  RunGangOfGpus([](ProcessGroup& group, at::Device gpu) {
    std::vector<at::Tensor> parts;
    for (int rank = 0; rank < group.size(); ++rank) parts.push_back(at::arange(5, at::kBFloat16) + 10 * rank);
    const at::Tensor whole = at::zeros({5 * group.size()}, at::TensorOptions(gpu).dtype(at::kBFloat16));
    group.AllGather(parts[group.rank()].to(gpu), whole).Wait();
    EXPECT_TRUE(at::equal(whole.cpu(), at::cat(parts)));
  });
}

TEST(Nccl, AllToAll_GivesEachRankItsPartAndLeavesItsOwn) {
  RunGangOfGpus([](ProcessGroup& group, at::Device gpu) {
    const at::Tensor in = (at::arange(2 * group.size(), at::kFloat) + 100 * group.rank()).to(gpu);
    const at::Tensor out = at::full({2 * group.size()}, -1, at::TensorOptions(gpu).dtype(at::kFloat));
    group.AllToAll(in, out).Wait();
    for (int from = 0; from < group.size(); ++from) {
      const at::Tensor sent = at::arange(2, at::kFloat) + 2 * group.rank() + 100 * from;
      const at::Tensor expected = from == group.rank() ? at::full({2}, -1, at::kFloat) : sent;
      EXPECT_TRUE(at::equal(out.narrow(0, 2 * from, 2).cpu(), expected));
    }
  });
}

// Ranks that have nothing do not hold up those that have.
TEST(Nccl, Gather_BringsPartsOfAnySizeToOneRank) {
  RunGangOfGpus([](ProcessGroup& group, at::Device gpu) {
    const at::Tensor mine = at::full({group.rank()}, group.rank(), at::TensorOptions(gpu).dtype(at::kFloat));
    std::vector<at::Tensor> parts;
    for (int rank = 0; group.rank() == 0 && rank < group.size(); ++rank) {
      parts.push_back(at::zeros({rank}, at::TensorOptions(gpu).dtype(at::kFloat)));
    }
    group.Gather(mine, parts, /*to=*/0).Wait();
    for (int rank = 1; rank < static_cast<int>(parts.size()); ++rank) {
      EXPECT_TRUE(at::equal(parts[rank].cpu(), at::full({rank}, rank, at::kFloat)));
    }
  });
}

TEST(Nccl, NumbersAndTexts_GoThroughTheCpu) {
  RunGangOfGpus([](ProcessGroup& group, at::Device) {
    EXPECT_EQ(static_cast<int>(group.AllGatherText("here").size()), group.size());
  });
}

}  // namespace
}  // namespace temper
