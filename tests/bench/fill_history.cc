// SPDX-License-Identifier: Apache-2.0
// Fills a data directory with jobs that have ended, as a server would have kept them: `fill_history DIR JOBS STEPS`.
// tests/bench/server_history.py measures a server on it.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/rpc/timestamp.h"
#include "server/jobs/job_store.h"
#include "tests/server/jobs/valid_spec.h"

namespace temper {
namespace {

constexpr int64_t kEventsPerCommit = 10'000;

v1::JobEvent StepEvent(int64_t step, int64_t steps, WallTime time) {
  v1::JobEvent event;
  event.set_sequence(step);
  *event.mutable_time() = ToTimestamp(time);
  v1::StepMetrics& metrics = *event.mutable_step();
  metrics.set_step(step);
  metrics.set_total_steps(steps);
  metrics.set_loss(1 + 1 / std::sqrt(static_cast<double>(step)));
  metrics.set_grad_norm(0.7);
  metrics.set_learning_rate(2e-4);
  metrics.set_tokens(4096);
  metrics.set_scored_tokens(1777);
  metrics.set_padding_ratio(0.03);
  metrics.set_seconds(1.25);
  metrics.set_mfu(0.61);
  metrics.set_hfu(0.61);
  metrics.set_peak_memory_bytes(3'200'000'000);
  metrics.set_total_tokens(4096 * step);
  metrics.set_epoch(static_cast<double>(step) / 1000);
  metrics.mutable_phases()->set_forward(0.4);
  metrics.mutable_phases()->set_backward(0.8);
  metrics.mutable_phases()->set_optimizer(0.05);
  return event;
}

v1::JobEvent EndEvent(int64_t sequence, WallTime time) {
  v1::JobEvent event;
  event.set_sequence(sequence);
  *event.mutable_time() = ToTimestamp(time);
  event.mutable_state()->set_state(v1::JOB_STATE_SUCCEEDED);
  event.mutable_state()->set_epoch(1);
  return event;
}

absl::Status Fill(const std::string& directory, int jobs, int64_t steps) {
  auto store = JobStore::Open(directory);
  if (!store.ok()) return store.status();
  WallTime now = RealClock().Wall();
  for (int i = 0; i < jobs; ++i) {
    JobUpdate update;
    update.record.id = absl::StrCat("job-", i);
    v1::Job& job = update.record.job;
    job.set_name("jobs/" + update.record.id);
    *job.mutable_spec() = ValidSpec();
    job.mutable_spec()->set_owner(absl::StrCat("owner-", i % 10));
    job.set_state(v1::JOB_STATE_SUCCEEDED);
    job.set_target(v1::JOB_TARGET_RUN);
    job.set_epoch(1);
    *job.mutable_create_time() = ToTimestamp(now);
    *job.mutable_end_time() = ToTimestamp(now);
    update.record.life.state = v1::JOB_STATE_SUCCEEDED;
    update.record.life.epoch = 1;
    job.set_last_sequence(steps + 1);
    for (int64_t step = 1; step <= steps; ++step) {
      update.events.push_back(StepEvent(step, steps, now));
      if (step == steps) *job.mutable_latest_step() = update.events.back().step();
      if (step == steps) update.events.push_back(EndEvent(steps + 1, now));
      if (step % kEventsPerCommit != 0 && step != steps) continue;
      const bool first = step <= kEventsPerCommit;
      if (absl::Status status = first ? (*store)->Create(update) : (*store)->Update(update); !status.ok()) {
        return status;
      }
      update.events.clear();
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: fill_history DIR JOBS STEPS\n");
    return 2;
  }
  const absl::Status status = temper::Fill(argv[1], std::atoi(argv[2]), std::atoll(argv[3]));
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
