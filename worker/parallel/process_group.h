// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/parallel/rendezvous.h"

namespace temper {

// A collective failed: the status (UNAVAILABLE, RANK_LOST) names the rank that was waited for. The group is of no use
// any more.
class CollectiveError : public std::runtime_error {
 public:
  explicit CollectiveError(absl::Status status)
      : std::runtime_error(std::string(status.message())), status_(std::move(status)) {}
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

// A collective under way. The tensors that it was given must be left alone until Wait() has returned.
class PendingCollective {
 public:
  PendingCollective();  // none: Wait() returns at once
  ~PendingCollective();
  PendingCollective(PendingCollective&&) noexcept;
  PendingCollective& operator=(PendingCollective&&) noexcept;

  // Throws CollectiveError. Nothing is under way afterwards; on a GPU, nothing that its stream has before it. Not after
  // the group is gone.
  void Wait();

 private:
  friend class ProcessGroup;
  struct Transfers;
  std::unique_ptr<Transfers> transfers_;
};

// The ranks of a gang, connected: by c10d's gloo, and for tensors on GPUs by its NCCL. Every rank calls the same
// collectives in the same order. One thread.
//
// A collective is a message from each rank to each other: what leaves a rank is what the textbook says, a failure is
// that of one peer, and sums are made here, in the order of the ranks, so that they are the same bits every time.
class ProcessGroup {
 public:
  // Returns when all ranks are there. UNAVAILABLE (RANK_LOST) when they are not within the timeout. Tensors are on the
  // CPU or on `device`, a GPU of this rank's own.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Connect(const Rendezvous& rendezvous,
                                                               at::Device device = at::kCPU);
  // Another group of the same ranks, with connections of its own: for another thread. Every rank calls it.
  absl::StatusOr<std::unique_ptr<ProcessGroup>> Duplicate();
  ~ProcessGroup();

  int rank() const { return rank_; }
  int size() const { return size_; }

  // whole[r · n, (r + 1) · n) becomes rank r's `shard`; both are contiguous vectors, of n and size() · n elements.
  // `of`, here and below, says whose, where torch's profiler records it: it shows all of the time that it is under way.
  PendingCollective AllGather(const at::Tensor& shard, const at::Tensor& whole, std::string_view of = {});

  // Rank r's in[p · n, (p + 1) · n) becomes rank p's out[r · n, (r + 1) · n). What a rank has for itself is not copied:
  // that part of `out` is left as it is.
  PendingCollective AllToAll(const at::Tensor& in, const at::Tensor& out, std::string_view of = {});

  // Parts of something come together on rank `to`, or on every rank (kAll): `mine` leaves this one, and what comes from
  // rank r lands in parts[r], which those who receive give. Contiguous; nothing is sent of no elements. What a rank has
  // itself is not copied.
  static constexpr int kAll = -1;
  PendingCollective Gather(const at::Tensor& mine, const std::vector<at::Tensor>& parts, int to);

  // Each rank's text, rank by rank.
  std::vector<std::string> AllGatherText(std::string_view text);

  // Each rank's values, rank by rank: [size()][values]. A few numbers, at once.
  std::vector<std::vector<double>> AllGatherValues(std::span<const double> values);

  // Payload of this rank since the group was connected.
  int64_t bytes_sent() const { return bytes_sent_; }
  // How long this rank has stood still for collectives since then.
  double seconds_waited() const { return seconds_waited_; }

 private:
  struct Backend;
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Join(Backend backend, const Rendezvous& rendezvous);
  ProcessGroup(int rank, int size, std::unique_ptr<Backend> backend);
  // To and from every other rank: the part of `in` that it gets, and the part of `out` that comes from it.
  template <typename PartFor, typename PartFrom>
  PendingCollective Exchange(const char* what, std::string_view of, at::Device device, PartFor part_for,
                             PartFrom part_from);

  const int rank_;
  const int size_;
  std::unique_ptr<Backend> backend_;
  int next_tag_ = 0;
  int duplicates_ = 0;
  int64_t bytes_sent_ = 0;
  double seconds_waited_ = 0;
};

}  // namespace temper
