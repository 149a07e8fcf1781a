// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <chrono>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "worker/parallel/rendezvous.h"

// c10d's backends: what carries the tensors of a kind of device from rank to rank. Ranks find each other through
// `store`; an exception says that they did not.
namespace temper {

c10::intrusive_ptr<c10d::Backend> MakeGloo(const c10::intrusive_ptr<c10d::Store>& store, const Rendezvous& rendezvous);

// For tensors of `device`, a GPU that no other rank uses. Throws in a build without TEMPER_CUDA.
c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>& store, const Rendezvous& rendezvous,
                                           at::Device device);

// The longest that a rank waits for another. One that is gone is missed at once; of one that hangs the node knows
// better (worker/node/hang_watch.h), and one that is slow, at an export say, is waited for.
constexpr std::chrono::milliseconds kCollectiveTimeout = std::chrono::hours(24 * 7);

}  // namespace temper
