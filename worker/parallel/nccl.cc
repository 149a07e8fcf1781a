// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "worker/parallel/collectives.h"
#include "worker/parallel/flight_recorder.h"

namespace temper {

c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>& store, const Rendezvous& rendezvous,
                                           at::Device device) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = kCollectiveTimeout;
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::PrefixStore>("nccl/", store),
                                                          rendezvous.rank, rendezvous.size, options);
  // Now, with every rank: later, those that have nothing to send would be missed.
  nccl->eagerConnectSingleDevice(device);
  return nccl;
}

std::string CollectivesUnderWay() {
  return c10d::dump_nccl_trace_json(/*includeCollectives=*/true, /*onlyActive=*/true);
}

}  // namespace temper
