// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "common/clock.h"
#include "server/observe/series.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

struct JobMetricsOptions {
  // Jobs that have series at a time. When there are more, those that ended longest ago lose theirs; a new job gets none
  // while all others live.
  int max_jobs = 1000;
  // How long the series of a job that has ended stay, so that a scraper sees its last figures.
  std::chrono::minutes ended_retention{60};
};

// What Prometheus sees of jobs: docs/ARCHITECTURE.md, "Metrics". Labels are `job` (the id) and at most one more, except
// for temper_job_info. Fed with the controller's events; any thread.
class JobMetrics {
 public:
  // Both must outlive it.
  JobMetrics(prometheus::Registry& registry, const Clock& clock, JobMetricsOptions options = {});
  ~JobMetrics();

  // A job that was there before this process.
  void AddExisting(const v1::Job& job);
  // The controller's listener.
  void OnEvent(const v1::Job& job, const v1::JobEvent& event);
  // Brings the time of waiting jobs up to now and drops what has been kept long enough. To be called before every
  // scrape.
  void Refresh();

 private:
  struct Families;
  struct JobSeries;

  // With mutex_ held; null when the job has no series.
  JobSeries* Find(const v1::Job& job);
  void Evict();
  void SetState(JobSeries& series, const v1::StateChange& change, double time);
  void SetTime(const std::string& id, JobSeries& series);
  void SetRankCompute(const std::string& id, JobSeries& series, const v1::StepMetrics& step);
  void AddStep(const std::string& id, JobSeries& series, const v1::StepMetrics& step, bool counts);
  void AddCheckpoint(const std::string& id, JobSeries& series, const v1::CheckpointCommitted& checkpoint);
  void AddLostSteps(const std::string& id, JobSeries& series, int64_t steps);

  const Clock& clock_;
  const JobMetricsOptions options_;
  std::unique_ptr<Families> families_;
  std::mutex mutex_;
  std::map<std::string, JobSeries> jobs_;  // by id
};

}  // namespace temper
