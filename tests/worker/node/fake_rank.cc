// SPDX-License-Identifier: Apache-2.0
// A temper-rank without the engine. The job's model.uri says what it does, so that a test can see how a node takes it.
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

#include "common/failure.h"
#include "worker/session/session.h"

namespace temper {
namespace {

[[noreturn]] void IgnoreTheNode() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

absl::Status Train(const TrainJob& job, TrainObserver& observer, const StopSignal& stop) {
  observer.OnPhase(TrainPhase::kTraining, job.training.steps);
  for (int64_t step = 1; step <= job.training.steps; ++step) {
    StepMetrics metrics;
    metrics.step = step;
    observer.OnStep(metrics);
  }
  const std::string& script = job.model_uri;
  if (script == "succeed") return absl::OkStatus();
  if (script == "fail") return WithCause(absl::InternalError("loss is NaN"), FailureCause::kNumerics);
  if (script == "until-stopped") {
    while (!stop.requested()) std::this_thread::yield();
    if (!stop.now()) observer.OnCheckpoint({.step = job.training.steps, .uri = "/o/checkpoint"});
    return absl::CancelledError("stopped");
  }
  if (script == "ignore-stop") IgnoreTheNode();
  if (script == "exit-7") {
    std::cerr << "something odd happened" << std::endl;
    std::_Exit(7);
  }
  if (script == "kill-itself") std::raise(SIGKILL);
  if (script == "throw") throw std::bad_alloc();
  return absl::InvalidArgumentError("no such script: " + script);
}

}  // namespace
}  // namespace temper

int main() {
  std::signal(SIGTERM, SIG_IGN);
  const int code = temper::RunSession(std::atoi(std::getenv("TEMPER_RANK_FD")),
                                      {.train = temper::Train, .preflight = temper::Train, .verify = nullptr});
  return code;
}
