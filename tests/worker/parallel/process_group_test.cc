// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/process_group.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/cord.h"
#include "common/failure.h"
#include "tests/worker/parallel/gang.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ProcessGroup, AllGather_PutsEveryRanksPartInItsPlace) {
  RunGang(3, [](ProcessGroup& group) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kShort}) {
      const at::Tensor shard = at::arange(4, dtype) + 10 * group.rank();
      const at::Tensor whole = at::zeros({12}, dtype);
      group.AllGather(shard, whole).Wait();
      EXPECT_TRUE(at::equal(whole, at::cat({at::arange(4), at::arange(10, 14), at::arange(20, 24)}).to(dtype)));
    }
  });
}

TEST(ProcessGroup, AllToAll_GivesEachRankItsPartAndLeavesItsOwn) {
  RunGang(3, [](ProcessGroup& group) {
    const at::Tensor in = at::arange(6, at::kFloat) + 10 * group.rank();  // two elements for each rank
    const at::Tensor out = at::full({6}, -1, at::kFloat);
    group.AllToAll(in, out).Wait();
    for (int from = 0; from < 3; ++from) {
      const at::Tensor expected = from == group.rank() ? at::full({2}, -1, at::kFloat)
                                                       : at::arange(2, at::kFloat) + 10 * from + 2 * group.rank();
      EXPECT_TRUE(at::equal(out.narrow(0, 2 * from, 2), expected));
    }
  });
}

TEST(ProcessGroup, CollectivesUnderWayTogether_DoNotMix) {
  RunGang(2, [](ProcessGroup& group) {
    const int64_t n = 1 << 18;
    std::vector<at::Tensor> shards, wholes;
    std::vector<PendingCollective> pending;
    for (int i = 0; i < 4; ++i) {
      shards.push_back(at::full({n}, 10 * i + group.rank(), at::kFloat));
      wholes.push_back(at::zeros({2 * n}));
      pending.push_back(group.AllGather(shards.back(), wholes.back()));
    }
    for (int i = 3; i >= 0; --i) {
      pending[i].Wait();
      EXPECT_TRUE(at::equal(wholes[i], at::cat({at::full({n}, 10.0f * i), at::full({n}, 10.0f * i + 1)})));
    }
  });
}

// Rank r has r elements.
TEST(ProcessGroup, Gather_BringsPartsOfAnySizeToOneRankOrAll) {
  for (const int to : {0, 2, ProcessGroup::kAll}) {
    RunGang(3, [to](ProcessGroup& group) {
      const bool receives = to == ProcessGroup::kAll || to == group.rank();
      const at::Tensor whole = receives ? at::full({3}, -1, at::kFloat) : at::Tensor();
      std::vector<at::Tensor> parts;
      if (receives) parts = {at::Tensor(), whole.narrow(0, 0, 1), whole.narrow(0, 1, 2)};
      const at::Tensor mine = at::arange(group.rank(), at::kFloat) + 10 * group.rank();
      group.Gather(mine, parts, to).Wait();
      if (!receives) return;
      if (group.rank() > 0) parts[group.rank()].copy_(mine);  // that is left to the caller
      EXPECT_TRUE(at::equal(whole, at::tensor({10, 20, 21}, at::kFloat)));
    });
  }
}

TEST(ProcessGroup, AllGatherText_IsRankByRank) {
  RunGang(3, [](ProcessGroup& group) {
    const std::string mine(group.rank() * 3, static_cast<char>('a' + group.rank()));
    EXPECT_THAT(group.AllGatherText(mine), ElementsAre("", "bbb", "cccccc"));
  });
}

TEST(ProcessGroup, ADuplicate_WorksBesideTheFirst) {
  RunGang(3, [](ProcessGroup& group) {
    const auto other = group.Duplicate(), third = group.Duplicate();
    ASSERT_TRUE(other.ok()) << other.status();
    ASSERT_TRUE(third.ok()) << third.status();
    // What a rank sends through one of them does not come out of another.
    const at::Tensor first = at::zeros({3}), second = at::zeros({3});
    PendingCollective pending = group.AllGather(at::full({1}, 1.0f + group.rank()), first);
    (*other)->AllGather(at::full({1}, 10.0f + group.rank()), second).Wait();
    pending.Wait();
    EXPECT_TRUE(at::equal(first, at::tensor({1, 2, 3}, at::kFloat)));
    EXPECT_TRUE(at::equal(second, at::tensor({10, 11, 12}, at::kFloat)));
  });
}

TEST(Agree, TheFirstRanksError_IsEveryones) {
  RunGang(3, [](ProcessGroup& group) {
    EXPECT_TRUE(Agree(absl::OkStatus(), &group).ok());
    absl::Status mine;
    if (group.rank() > 0) {
      mine = WithCause(absl::UnavailableError("disk " + std::to_string(group.rank())), FailureCause::kPreempted);
    }
    const absl::Status all = Agree(mine, &group);
    EXPECT_EQ(all, WithCause(absl::UnavailableError("disk 1"), FailureCause::kPreempted));
  });
  EXPECT_EQ(Agree(absl::DataLossError("alone"), nullptr), absl::DataLossError("alone"));
}

// Such as the traceback of Python, which is for the log of the rank that has it.
TEST(Agree, OnesOwnError_KeepsAllThatItCarries) {
  RunGang(2, [](ProcessGroup& group) {
    absl::Status mine;
    if (group.rank() == 0) {
      mine = absl::InternalError("raised");
      mine.SetPayload("traceback", absl::Cord("line 1"));
    }
    const absl::Status all = Agree(mine, &group);
    EXPECT_EQ(all.message(), "raised");
    EXPECT_EQ(all.GetPayload("traceback").has_value(), group.rank() == 0);
  });
}

TEST(ProcessGroup, AllGatherValues_IsRankByRank) {
  RunGang(3, [](ProcessGroup& group) {
    const double mine[] = {0.5 * group.rank(), 1e300};
    EXPECT_THAT(group.AllGatherValues(mine),
                ElementsAre(ElementsAre(0, 1e300), ElementsAre(0.5, 1e300), ElementsAre(1, 1e300)));
  });
}

TEST(ProcessGroup, BytesSent_AreWhatTheOthersLack) {
  RunGang(4, [](ProcessGroup& group) {
    group.AllGather(at::zeros({8}, at::kBFloat16), at::zeros({32}, at::kBFloat16)).Wait();
    EXPECT_EQ(group.bytes_sent(), 3 * 8 * 2);
    group.AllToAll(at::zeros({32}), at::zeros({32})).Wait();
    EXPECT_EQ(group.bytes_sent(), 3 * 8 * 2 + 3 * 8 * 4);
  });
}

TEST(ProcessGroup, OfOne_HasNobodyToWaitFor) {
  RunGang(1, [](ProcessGroup& group) {
    const at::Tensor whole = at::zeros({2});
    group.AllGather(at::ones({2}), whole).Wait();
    EXPECT_TRUE(at::equal(whole, at::ones({2})));
    EXPECT_EQ(group.bytes_sent(), 0);
  });
}

// What a rank throws when rank 2 is gone.
void ExpectRank2Missed(ProcessGroup& group) {
  try {
    group.AllGather(at::zeros({8}), at::zeros({24})).Wait();
    ADD_FAILURE() << "rank 2 was not missed";
  } catch (const CollectiveError& error) {
    EXPECT_TRUE(absl::IsUnavailable(error.status()));
    EXPECT_EQ(CauseOf(error.status()), FailureCause::kRankLost);
    EXPECT_THAT(error.what(), HasSubstr("of 3 has lost rank 2, in an all-gather"));
  }
}

TEST(ProcessGroup, ARankThatIsGone_IsNamed) {
  std::atomic<bool> missed = false;
  RunGang(3, [&](ProcessGroup& group) {
    if (group.rank() == 0) missed.wait(false);
    if (group.rank() != 1) return;
    ExpectRank2Missed(group);
    missed = true;
    missed.notify_all();
  });
}

// The timeout is for finding each other: a rank may be busy for long.
TEST(ProcessGroup, ARankThatIsLate_IsWaitedFor) {
  constexpr std::chrono::seconds kTimeout{1};
  RunGang(
      3,
      [&](ProcessGroup& group) {
        if (group.rank() == 2) std::this_thread::sleep_for(2 * kTimeout);
        const double mine[] = {1.0};
        EXPECT_EQ(group.AllGatherValues(mine).size(), 3u);
      },
      kTimeout);
}

TEST(ProcessGroup, Connect_WithoutTheOthers_SaysWhere) {
  const LoopbackPort port = ListenOnLoopback();
  const auto group = ProcessGroup::Connect({.rank = 0,
                                            .size = 2,
                                            .port = port.port,
                                            .listen_fd = port.listen_fd,
                                            .timeout = std::chrono::milliseconds(300)});
  ASSERT_TRUE(absl::IsUnavailable(group.status())) << group.status();
  EXPECT_EQ(CauseOf(group.status()), FailureCause::kRankLost);
  EXPECT_THAT(std::string(group.status().message()),
              HasSubstr("rank 0 of 2 did not find the others through 127.0.0.1:" + std::to_string(port.port)));
}

}  // namespace
}  // namespace temper
