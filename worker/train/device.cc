// SPDX-License-Identifier: Apache-2.0
#include "worker/train/device.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "absl/strings/str_cat.h"
#include "common/counted.h"
#include "common/failure.h"
#include "worker/train/memory_estimate.h"
#include "worker/train/step_metrics.h"

namespace temper {
namespace {

// Asked of torch, the answer would be another one once Python has loaded all of it.
#ifdef TEMPER_CUDA
constexpr bool kBuiltWithCuda = true;
#else
constexpr bool kBuiltWithCuda = false;
#endif

}  // namespace

absl::Status CheckDevice(const TrainJob& job) {
  if (job.device == DeviceKind::kCpu || kBuiltWithCuda) return absl::OkStatus();
  return WithCause(
      absl::UnimplementedError("resources.device is CUDA, but this temper-rank was built without: configure with "
                               "-DTEMPER_CUDA=ON, or ask for CPU"),
      FailureCause::kUserInput);
}

absl::StatusOr<at::Device> OpenDevice(const TrainJob& job) {
  if (absl::Status built = CheckDevice(job); !built.ok()) return built;
  if (job.device == DeviceKind::kCpu) return at::Device(at::kCPU);
  const c10::impl::VirtualGuardImpl backend(at::kCUDA);
  const int rank = job.rendezvous ? job.rendezvous->rank % job.rendezvous->per_node : 0;
  if (rank >= backend.deviceCount()) {
    return WithCause(absl::UnavailableError(absl::StrCat("rank ", rank, " of its node needs a GPU of its own, but ",
                                                         Counted(backend.deviceCount(), "GPU"), " can be used here")),
                     FailureCause::kLaunch);
  }
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(rank));
  backend.setDevice(device);
  return device;
}

int64_t AvailableBytes(at::Device device) {
  if (device.is_cpu()) return AvailableBytes();
  return static_cast<int64_t>(c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first);
}

int64_t PeakMemoryBytes(at::Device device) {
  if (device.is_cpu()) return PeakMemoryBytes();
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return c10::getDeviceAllocator(device.type())->getDeviceStats(device.index()).reserved_bytes[kAll].peak;
}

}  // namespace temper
