// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/storage/object_store.h"
#include "worker/train/train_job.h"

namespace temper {

// Records the steps that a job wants recorded, with torch's profiler, and writes them as a Chrome trace below the job's
// output (common/storage/job_layout.h). What goes wrong with it is a warning: training goes on. One thread, the one
// that takes the steps.
class StepProfiler {
 public:
  // All must outlive it.
  StepProfiler(const TrainJob& job, ObjectStore& output, TrainObserver& observer);
  // Writes what there is of a recording that was interrupted.
  ~StepProfiler();
  StepProfiler(const StepProfiler&) = delete;
  StepProfiler& operator=(const StepProfiler&) = delete;

  // `step` is about to begin, or has been taken; from 1.
  void BeforeStep(int64_t step);
  void AfterStep(int64_t step);

 private:
  void Finish();

  const TrainJob& job_;
  ObjectStore& output_;
  TrainObserver& observer_;
  int64_t first_ = 0;  // of the recording that runs; 0: none does
  int64_t last_ = 0;
};

}  // namespace temper
