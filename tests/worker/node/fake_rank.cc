// SPDX-License-Identifier: Apache-2.0
// A temper-rank without the engine. The job's model.uri says what it does, so that a test can see how a node takes it.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "common/failure.h"
#include "worker/session/session.h"

namespace temper {
namespace {

[[noreturn]] void IgnoreTheNode() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

absl::Status WaitForStop(const StopSignal& stop) {
  while (!stop.requested()) std::this_thread::yield();
  return absl::CancelledError("stopped");
}

// Rank 0 waits until all others have connected; then each of them hears from it.
absl::Status Meet(const Rendezvous& rendezvous) {
  if (rendezvous.rank == 0) {
    std::vector<int> others;
    for (int other = 1; other < rendezvous.size; ++other) {
      others.push_back(accept(rendezvous.listen_fd, nullptr, nullptr));
    }
    for (const int other : others) close(other);
    return absl::OkStatus();
  }
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(rendezvous.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  char byte;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return absl::InternalError("not met");
  return recv(fd, &byte, 1, 0) == 0 ? absl::OkStatus() : absl::InternalError("not met");
}

// As one of several ranks: what the script says happens to one, and the others miss it.
absl::Status TrainTogether(const std::string& script, const Rendezvous& rendezvous, const StopSignal& stop) {
  const bool mine = script.starts_with("rank-" + std::to_string(rendezvous.rank) + "-");
  if (const absl::Status met = Meet(rendezvous); !met.ok() || script == "meet") return met;
  if (mine && script.ends_with("-dies")) {
    WaitForStop(stop).IgnoreError();  // the others are faster, and the node knows
    std::raise(SIGKILL);
  }
  if (mine && script.ends_with("-hangs")) IgnoreTheNode();
  if (mine && script.ends_with("-fails")) return WithCause(absl::InternalError("NaN"), FailureCause::kNumerics);
  if (script.ends_with("-fails")) return WaitForStop(stop);
  const std::string missing = "rank " + std::to_string(rendezvous.rank) + " has lost another";
  return WithCause(absl::UnavailableError(missing), FailureCause::kRankLost);
}

// In a step, or behind one; rank 1, where there is one, is stopped, which is why.
[[noreturn]] void HangInAStep(const std::string& script, const TrainJob& job, TrainObserver& observer) {
  if (job.rendezvous && job.rendezvous->rank == 1) std::raise(SIGSTOP);
  if (script != "step-hangs-not") observer.OnStepBegun();
  IgnoreTheNode();
}

absl::Status Train(const TrainJob& job, TrainObserver& observer, const StopSignal& stop) {
  observer.OnPhase(TrainPhase::kTraining, job.training.steps);
  for (int64_t step = 1; step <= job.training.steps; ++step) {
    StepMetrics metrics;
    metrics.step = step;
    metrics.seconds = 0.001;
    observer.OnStepBegun();
    observer.OnStep(metrics);
  }
  const std::string& script = job.model_uri;
  if (script.starts_with("step-hangs")) HangInAStep(script, job, observer);
  if (script == "succeed") return absl::OkStatus();
  if (script == "until-heard") {
    while (!observer.Unheard().empty() && !stop.requested()) std::this_thread::yield();
    return absl::OkStatus();
  }
  if (script == "fail") return WithCause(absl::InternalError("loss is NaN"), FailureCause::kNumerics);
  if (script == "until-stopped") {
    const absl::Status stopped = WaitForStop(stop);
    if (!stop.now()) observer.OnCheckpoint({.step = job.training.steps, .uri = "/o/checkpoint"});
    return stopped;
  }
  if (job.rendezvous) return TrainTogether(script, *job.rendezvous, stop);
  if (script == "ignore-stop") IgnoreTheNode();
  if (script == "exit-7") {
    std::cerr << "something odd happened" << std::endl;
    std::_Exit(7);
  }
  if (script == "dies-when-stopped") WaitForStop(stop).IgnoreError();
  if (script == "kill-itself" || script == "dies-when-stopped") std::raise(SIGKILL);
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
