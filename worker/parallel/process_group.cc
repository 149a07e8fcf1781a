// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/process_group.h"

#include <ATen/ATen.h>

#include <limits>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failure.h"

namespace temper {
namespace {

absl::Status RankLost(const std::string& message) {
  return WithCause(absl::UnavailableError(message), FailureCause::kRankLost);
}

// torch's errors bring a stack trace along.
std::string MessageOf(const std::exception& error) {
  const auto* const of_torch = dynamic_cast<const c10::Error*>(&error);
  return of_torch != nullptr ? of_torch->what_without_backtrace() : error.what();
}

}  // namespace

struct ProcessGroup::Backend {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> backend;
};

struct PendingCollective::Transfers {
  struct Transfer {
    int peer;
    c10::intrusive_ptr<c10d::Work> work;
  };
  const char* what;
  int rank;
  int size;
  std::vector<Transfer> transfers;
};

PendingCollective::PendingCollective() = default;
PendingCollective::~PendingCollective() = default;
PendingCollective::PendingCollective(PendingCollective&&) noexcept = default;
PendingCollective& PendingCollective::operator=(PendingCollective&&) noexcept = default;

void PendingCollective::Wait() {
  if (transfers_ == nullptr) return;
  const std::unique_ptr<Transfers> under_way = std::move(transfers_);
  for (const Transfers::Transfer& transfer : under_way->transfers) {
    try {
      transfer.work->wait();
    } catch (const std::exception& error) {
      throw CollectiveError(RankLost(absl::StrCat("rank ", under_way->rank, " of ", under_way->size, " has lost rank ",
                                                  transfer.peer, ", in ", under_way->what, ": ", MessageOf(error))));
    }
  }
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Connect(const Rendezvous& rendezvous) {
  try {
    c10d::TCPStoreOptions options;
    options.port = rendezvous.port;
    options.isServer = rendezvous.rank == 0;
    options.waitWorkers = false;  // the backend waits for them
    options.timeout = rendezvous.timeout;
    if (rendezvous.listen_fd >= 0) options.masterListenFd = rendezvous.listen_fd;
    auto backend = std::make_unique<Backend>();
    backend->store = c10::make_intrusive<c10d::TCPStore>(rendezvous.host, options);
    auto gloo = c10d::ProcessGroupGloo::Options::create(rendezvous.timeout);
    gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(rendezvous.address));
    gloo->threads = 1;  // messages need none
    backend->backend =
        c10::make_intrusive<c10d::ProcessGroupGloo>(backend->store, rendezvous.rank, rendezvous.size, gloo);
    std::unique_ptr<ProcessGroup> group(new ProcessGroup(rendezvous.rank, rendezvous.size, std::move(backend)));
    // A rank that has all its connections, and goes, would be missed by others that are still at theirs.
    group->AllGatherValues(std::vector<double>{0});
    group->bytes_sent_ = 0;
    return group;
  } catch (const std::exception& error) {
    return RankLost(absl::StrCat("rank ", rendezvous.rank, " of ", rendezvous.size, " did not find the others through ",
                                 rendezvous.host, ":", rendezvous.port, ": ", MessageOf(error)));
  }
}

ProcessGroup::ProcessGroup(int rank, int size, std::unique_ptr<Backend> backend)
    : rank_(rank), size_(size), backend_(std::move(backend)) {}

ProcessGroup::~ProcessGroup() = default;

template <typename PartFor, typename PartFrom>
PendingCollective ProcessGroup::Exchange(const char* what, PartFor part_for, PartFrom part_from) {
  const int tag = next_tag_;
  next_tag_ = tag == std::numeric_limits<int>::max() ? 0 : tag + 1;
  PendingCollective pending;
  pending.transfers_ = std::make_unique<PendingCollective::Transfers>(what, rank_, size_);
  // Each rank begins with another peer, or all would send to the first one first.
  const auto with_each_peer = [&](auto start) {
    for (int distance = 1; distance < size_; ++distance) {
      const int peer = (rank_ + distance) % size_;
      try {
        pending.transfers_->transfers.push_back({peer, start(peer)});
      } catch (const std::exception& error) {
        throw CollectiveError(RankLost(absl::StrCat("rank ", rank_, " of ", size_, " has lost rank ", peer, ", in ",
                                                    what, ": ", MessageOf(error))));
      }
    }
  };
  with_each_peer([&](int peer) {
    std::vector<at::Tensor> part = {part_from(peer)};
    return backend_->backend->recv(part, peer, tag);
  });
  with_each_peer([&](int peer) {
    std::vector<at::Tensor> part = {part_for(peer)};
    bytes_sent_ += static_cast<int64_t>(part[0].nbytes());
    return backend_->backend->send(part, peer, tag);
  });
  return pending;
}

PendingCollective ProcessGroup::AllGather(const at::Tensor& shard, const at::Tensor& whole) {
  const int64_t each = shard.numel();
  TORCH_CHECK(whole.numel() == size_ * each, "an all-gather of ", size_, " × ", each, " into ", whole.numel());
  whole.narrow(0, rank_ * each, each).copy_(shard);
  return Exchange(
      "an all-gather", [&](int) { return shard; }, [&](int peer) { return whole.narrow(0, peer * each, each); });
}

PendingCollective ProcessGroup::AllToAll(const at::Tensor& in, const at::Tensor& out) {
  const int64_t each = in.numel() / size_;
  TORCH_CHECK(in.numel() == size_ * each && out.numel() == in.numel(), "an all-to-all of ", in.numel(), " into ",
              out.numel(), " between ", size_, " ranks");
  return Exchange(
      "an all-to-all", [&](int peer) { return in.narrow(0, peer * each, each); },
      [&](int peer) { return out.narrow(0, peer * each, each); });
}

std::vector<std::vector<double>> ProcessGroup::AllGatherValues(std::span<const double> values) {
  const auto each = static_cast<int64_t>(values.size());
  const at::Tensor own = at::empty({each}, at::kDouble), all = at::empty({size_ * each}, at::kDouble);
  std::copy(values.begin(), values.end(), own.mutable_data_ptr<double>());
  AllGather(own, all).Wait();
  std::vector<std::vector<double>> by_rank;
  for (int rank = 0; rank < size_; ++rank) {
    const double* const begin = all.const_data_ptr<double>() + rank * each;
    by_rank.emplace_back(begin, begin + each);
  }
  return by_rank;
}

}  // namespace temper
