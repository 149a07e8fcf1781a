// SPDX-License-Identifier: Apache-2.0
#include "worker/train/step_profiler.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/storage/job_layout.h"

namespace temper {
namespace {

using torch::profiler::impl::ActivityType;

// Starts what disableProfiler() ends.
void StartRecording() {
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO,
                                                     /*report_input_shapes=*/true);
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (at::hasCUDA()) activities.insert(ActivityType::CUDA);
  torch::autograd::profiler::prepareProfiler(config, activities);
  torch::autograd::profiler::enableProfiler(config, activities);
}

// The recording as a Chrome trace, which torch can write to a file only.
std::string StopRecording() {
  const std::filesystem::path file =
      std::filesystem::temp_directory_path() / absl::StrCat("temper-profile-", ::getpid(), ".json");
  torch::autograd::profiler::disableProfiler()->save(file.string());
  std::ostringstream trace;
  trace << std::ifstream(file, std::ios::binary).rdbuf();
  std::error_code ignored;
  std::filesystem::remove(file, ignored);
  return trace.str();
}

}  // namespace

StepProfiler::StepProfiler(const TrainJob& job, ObjectStore& output, TrainObserver& observer)
    : job_(job), output_(output), observer_(observer) {}

StepProfiler::~StepProfiler() {
  if (first_ > 0) Finish();
}

void StepProfiler::BeforeStep(int64_t step) {
  const bool is_first_rank = !job_.rendezvous || job_.rendezvous->rank == 0;  // one trace is enough
  if (first_ > 0 || !job_.profile || !is_first_rank) return;
  const int64_t end = job_.profile->first_step + job_.profile->steps;
  if (step < job_.profile->first_step || step >= end) return;
  try {
    StartRecording();
    first_ = last_ = step;
  } catch (const std::exception& error) {
    observer_.OnLog(LogSeverity::kWarning, absl::StrCat("step ", step, " can't be recorded: ", error.what()));
  }
}

void StepProfiler::AfterStep(int64_t step) {
  if (first_ == 0) return;
  last_ = step;
  if (step + 1 >= job_.profile->first_step + job_.profile->steps) Finish();
}

void StepProfiler::Finish() {
  const std::string path = ProfilePath(job_.job_id, job_.epoch, first_, last_);
  absl::Status written;
  try {
    written = output_.Write(path, StopRecording());
  } catch (const std::exception& error) {
    written = absl::InternalError(error.what());
  }
  if (written.ok()) {
    observer_.OnLog(LogSeverity::kInfo, absl::StrCat("steps ", first_, " to ", last_, " are recorded in ",
                                                     output_.UriOf(path), " (a Chrome trace)"));
  } else {
    observer_.OnLog(LogSeverity::kWarning, absl::StrCat("the recording of steps ", first_, " to ", last_,
                                                        " could not be written: ", std::string(written.message())));
  }
  first_ = 0;
}

}  // namespace temper
