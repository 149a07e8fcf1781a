// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/process_group.h"

#include <ATen/ATen.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <exception>
#include <future>
#include <limits>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/failure.h"
#include "common/fault_point.h"
#include "worker/parallel/collectives.h"

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

// That of whatever there is to send or to receive.
at::Device DeviceOf(const at::Tensor& mine, const std::vector<at::Tensor>& parts) {
  if (mine.defined()) return mine.device();
  const auto part = std::ranges::find_if(parts, [](const at::Tensor& each) { return each.defined(); });
  return part == parts.end() ? at::Device(at::kCPU) : part->device();
}

absl::Status NotFound(const Rendezvous& rendezvous, const std::exception& error) {
  return RankLost(absl::StrCat("rank ", rendezvous.rank, " of ", rendezvous.size, " did not find the others through ",
                               rendezvous.host, ":", rendezvous.port, ": ", MessageOf(error)));
}

}  // namespace

struct ProcessGroup::Backend {
  Rendezvous rendezvous;
  at::Device device = at::kCPU;
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> gloo;
  c10::intrusive_ptr<c10d::Backend> nccl;  // null without a GPU

  c10d::Backend& For(at::Device of) { return of.is_cpu() ? *gloo : *nccl; }
};

struct PendingCollective::Transfers {
  struct Transfer {
    int peer;  // kAll: to and from all of them
    c10::intrusive_ptr<c10d::Work> work;
  };
  const char* what;
  int rank;
  int size;
  double& seconds_waited;
  std::vector<Transfer> transfers;
  std::future<void> recording;  // waits for all of them, where a profiler is to see how long they take

  CollectiveError Lost(int peer, const std::exception& error) const;
  // Throws CollectiveError.
  void WaitForAll() const;
  void Record(std::string_view of);
};

CollectiveError PendingCollective::Transfers::Lost(int peer, const std::exception& error) const {
  const std::string lost = peer == ProcessGroup::kAll ? "another" : absl::StrCat("rank ", peer);
  return CollectiveError(
      RankLost(absl::StrCat("rank ", rank, " of ", size, " has lost ", lost, ", in ", what, ": ", MessageOf(error))));
}

void PendingCollective::Transfers::WaitForAll() const {
  for (const Transfer& transfer : transfers) {
    try {
      transfer.work->wait(kCollectiveTimeout);
    } catch (const std::exception& error) {
      throw Lost(transfer.peer, error);
    }
  }
}

// On a thread that the profiler of this one takes for its own.
void PendingCollective::Transfers::Record(std::string_view of) {
  const std::string name = absl::StrCat(absl::StripPrefix(what, "an "), ", ", std::string(of));
  recording = std::async(std::launch::async, [this, state = at::ThreadLocalState(), name] {
    const at::ThreadLocalStateGuard of_the_step(state);
    RECORD_USER_SCOPE(name);
    WaitForAll();
  });
}

PendingCollective::PendingCollective() = default;
PendingCollective::~PendingCollective() = default;
PendingCollective::PendingCollective(PendingCollective&&) noexcept = default;
PendingCollective& PendingCollective::operator=(PendingCollective&&) noexcept = default;

void PendingCollective::Wait() {
  if (transfers_ == nullptr) return;
  const std::unique_ptr<Transfers> under_way = std::move(transfers_);
  const auto begin = std::chrono::steady_clock::now();
  if (under_way->recording.valid()) {
    under_way->recording.get();
  } else {
    under_way->WaitForAll();
  }
  under_way->seconds_waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Connect(const Rendezvous& rendezvous, at::Device device) {
  try {
    c10d::TCPStoreOptions options;
    options.port = rendezvous.port;
    options.isServer = rendezvous.rank == 0;
    options.waitWorkers = false;  // the backend waits for them
    options.timeout = rendezvous.timeout;
    if (rendezvous.listen_fd >= 0) options.masterListenFd = rendezvous.listen_fd;
    Backend backend;
    backend.device = device;
    backend.store = c10::make_intrusive<c10d::TCPStore>(rendezvous.host, options);
    FaultPoint("rank.rendezvous.store_opened");
    auto group = Join(std::move(backend), rendezvous);
    FaultPoint("rank.rendezvous.done");
    return group;
  } catch (const std::exception& error) {
    return NotFound(rendezvous, error);
  }
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Duplicate() {
  Backend backend;
  backend.device = backend_->device;
  backend.store =
      c10::make_intrusive<c10d::PrefixStore>(absl::StrCat("duplicate ", duplicates_++, "/"), backend_->store);
  return Join(std::move(backend), backend_->rendezvous);
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Join(Backend backend, const Rendezvous& rendezvous) {
  try {
    backend.rendezvous = rendezvous;
    backend.gloo = MakeGloo(backend.store, rendezvous);
    if (!backend.device.is_cpu()) backend.nccl = MakeNccl(backend.store, rendezvous, backend.device);
    std::unique_ptr<ProcessGroup> group(
        new ProcessGroup(rendezvous.rank, rendezvous.size, std::make_unique<Backend>(std::move(backend))));
    // A rank that has all its connections, and goes, would be missed by others that are still at theirs.
    group->AllGatherValues(std::vector<double>{0});
    group->bytes_sent_ = 0;
    group->seconds_waited_ = 0;
    return group;
  } catch (const std::exception& error) {
    return NotFound(rendezvous, error);
  }
}

ProcessGroup::ProcessGroup(int rank, int size, std::unique_ptr<Backend> backend)
    : rank_(rank), size_(size), backend_(std::move(backend)) {}

ProcessGroup::~ProcessGroup() = default;

template <typename PartFor, typename PartFrom>
PendingCollective ProcessGroup::Exchange(const char* what, std::string_view of, at::Device device, PartFor part_for,
                                         PartFrom part_from) {
  const int tag = next_tag_;
  next_tag_ = tag == std::numeric_limits<int>::max() ? 0 : tag + 1;
  PendingCollective pending;
  pending.transfers_ = std::make_unique<PendingCollective::Transfers>(what, rank_, size_, seconds_waited_);
  PendingCollective::Transfers& under_way = *pending.transfers_;
  using Work = c10::intrusive_ptr<c10d::Work>;  // null: there is nothing to wait for
  c10d::Backend& backend = backend_->For(device);
  // NCCL's messages are one operation, or each would wait on the GPU for the one before.
  const bool together = !device.is_cpu();
  const auto try_with = [&](int peer, auto start) {
    try {
      if (Work work = start()) under_way.transfers.push_back({peer, std::move(work)});
    } catch (const std::exception& error) {
      throw under_way.Lost(peer, error);
    }
  };
  // Each rank begins with another peer, or all would send to the first one first.
  const auto with_each_peer = [&](auto start) {
    for (int distance = 1; distance < size_; ++distance) {
      const int peer = (rank_ + distance) % size_;
      try_with(peer, [&] { return start(peer); });
    }
  };
  if (together) backend.startCoalescing();
  with_each_peer([&](int peer) {
    std::vector<at::Tensor> part = {part_from(peer)};
    return part[0].numel() == 0 ? Work() : backend.recv(part, peer, tag);
  });
  with_each_peer([&](int peer) {
    std::vector<at::Tensor> part = {part_for(peer)};
    if (part[0].numel() == 0) return Work();
    bytes_sent_ += static_cast<int64_t>(part[0].nbytes());
    return backend.send(part, peer, tag);
  });
  if (together) try_with(kAll, [&] { return backend.endCoalescing(); });
  if (!of.empty() && at::hasThreadLocalCallbacks()) under_way.Record(of);
  return pending;
}

PendingCollective ProcessGroup::AllGather(const at::Tensor& shard, const at::Tensor& whole, std::string_view of) {
  const int64_t each = shard.numel();
  TORCH_CHECK(whole.numel() == size_ * each, "an all-gather of ", size_, " × ", each, " into ", whole.numel());
  whole.narrow(0, rank_ * each, each).copy_(shard);
  return Exchange(
      "an all-gather", of, shard.device(), [&](int) { return shard; },
      [&](int peer) { return whole.narrow(0, peer * each, each); });
}

PendingCollective ProcessGroup::AllToAll(const at::Tensor& in, const at::Tensor& out, std::string_view of) {
  const int64_t each = in.numel() / size_;
  TORCH_CHECK(in.numel() == size_ * each && out.numel() == in.numel(), "an all-to-all of ", in.numel(), " into ",
              out.numel(), " between ", size_, " ranks");
  return Exchange(
      "an all-to-all", of, in.device(), [&](int peer) { return in.narrow(0, peer * each, each); },
      [&](int peer) { return out.narrow(0, peer * each, each); });
}

PendingCollective ProcessGroup::Gather(const at::Tensor& mine, const std::vector<at::Tensor>& parts, int to) {
  const bool receives = to == kAll || to == rank_;
  return Exchange(
      "a gather", /*of=*/{}, DeviceOf(mine, parts),
      [&](int peer) { return to == kAll || to == peer ? mine : at::Tensor(); },
      [&](int peer) { return receives ? parts[peer] : at::Tensor(); });
}

std::vector<std::string> ProcessGroup::AllGatherText(std::string_view text) {
  const auto bytes_of = [](std::string_view bytes) {
    return at::from_blob(const_cast<char*>(bytes.data()), {static_cast<int64_t>(bytes.size())}, at::kByte);
  };
  std::vector<std::string> texts;
  for (const auto& size : AllGatherValues(std::vector<double>{static_cast<double>(text.size())})) {
    texts.emplace_back(static_cast<size_t>(size[0]), '\0');
  }
  texts[rank_] = text;
  std::vector<at::Tensor> parts;
  for (const std::string& each : texts) parts.push_back(bytes_of(each));
  Gather(bytes_of(text), parts, kAll).Wait();
  return texts;
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
