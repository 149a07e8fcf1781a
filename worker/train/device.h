// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/train/train_job.h"

namespace temper {

// Whether this program can compute on what the job asks for, were it there. UNIMPLEMENTED (USER_INPUT) says what is
// missing.
absl::Status CheckDevice(const TrainJob& job);

// What this rank computes on: the CPU, or the GPU that has the rank's number on its node, which is this thread's
// current one from then on. Errors as CheckDevice; UNAVAILABLE (LAUNCH) when there is no such GPU.
absl::StatusOr<at::Device> OpenDevice(const TrainJob& job);

// Memory that this process could still have, in bytes: of the machine (or this process's control group), or of the GPU.
// 0 where nobody tells.
int64_t AvailableBytes(at::Device device);

// The most that it has had: resident on the machine, or reserved on the GPU.
int64_t PeakMemoryBytes(at::Device device);

}  // namespace temper
