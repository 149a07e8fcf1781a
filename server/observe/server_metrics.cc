// SPDX-License-Identifier: Apache-2.0
#include "server/observe/server_metrics.h"

#include "server/jobs/job_machine.h"

namespace temper {

ServerMetrics::ServerMetrics(prometheus::Registry& registry, const std::string& version, WallTime start)
    : rpcs_(prometheus::BuildCounter()
                .Name("temper_server_rpcs_total")
                .Help("Calls that have ended, by method and status")
                .Register(registry)),
      jobs_(prometheus::BuildGauge()
                .Name("temper_server_jobs")
                .Help("Jobs that the server knows, by state")
                .Register(registry)),
      watchers_(prometheus::BuildGauge()
                    .Name("temper_server_watchers")
                    .Help("Streams of WatchJob that are open")
                    .Register(registry)
                    .Add({})),
      clock_drift_(prometheus::BuildGauge()
                       .Name("temper_server_clock_drift_seconds")
                       .Help("By how much the machine's clock was set since the server started, which does not follow")
                       .Register(registry)
                       .Add({})),
      disk_free_(prometheus::BuildGauge()
                     .Name("temper_server_disk_free_bytes")
                     .Help("What the disk of the data directory has left for the server's user")
                     .Register(registry)
                     .Add({})),
      disk_size_(prometheus::BuildGauge()
                     .Name("temper_server_disk_size_bytes")
                     .Help("How large the disk of the data directory is")
                     .Register(registry)
                     .Add({})),
      tls_reloads_(
          prometheus::BuildCounter()
              .Name("temper_server_tls_reloads_total")
              .Help("Changes of the files that TLS is made of, by result: taken over, or refused, which leaves "
                    "what was there before")
              .Register(registry)),
      tls_expiry_(prometheus::BuildGauge()
                      .Name("temper_server_tls_expiry_time_seconds")
                      .Help("When the certificate that callers are shown expires, in seconds since 1970")
                      .Register(registry)) {
  prometheus::BuildGauge()
      .Name("temper_server_build_info")
      .Help("What was built; always 1")
      .Register(registry)
      .Add({{"version", version}})
      .Set(1);
  prometheus::BuildGauge()
      .Name("temper_server_start_time_seconds")
      .Help("When the server started, in seconds since 1970")
      .Register(registry)
      .Add({})
      .Set(std::chrono::duration<double>(start.time_since_epoch()).count());
}

void ServerMetrics::CountRpc(std::string_view method, const absl::Status& status) {
  // Add() returns the series that is there already.
  rpcs_.Add({{"method", std::string(method)}, {"code", absl::StatusCodeToString(status.code())}}).Increment();
}

void ServerMetrics::SetJobs(const std::map<v1::JobState, int64_t>& jobs_by_state) {
  for (int i = v1::JobState_MIN + 1; i <= v1::JobState_MAX; ++i) {
    if (!v1::JobState_IsValid(i)) continue;
    const auto state = static_cast<v1::JobState>(i);
    const auto count = jobs_by_state.find(state);
    jobs_.Add({{"state", StateName(state)}}).Set(count == jobs_by_state.end() ? 0 : static_cast<double>(count->second));
  }
}

void ServerMetrics::SetWatchers(int watchers) { watchers_.Set(watchers); }

void ServerMetrics::SetClockDrift(std::chrono::nanoseconds drift) {
  clock_drift_.Set(std::chrono::duration<double>(drift).count());
}

void ServerMetrics::SetDisk(const std::filesystem::space_info& disk) {
  disk_free_.Set(static_cast<double>(disk.available));
  disk_size_.Set(static_cast<double>(disk.capacity));
}

void ServerMetrics::CountTlsReload(const absl::Status& status) {
  tls_reloads_.Add({{"result", status.ok() ? "taken" : "refused"}}).Increment();
}

void ServerMetrics::SetTlsExpiry(WallTime expiry) {
  tls_expiry_.Add({}).Set(std::chrono::duration<double>(expiry.time_since_epoch()).count());
}

}  // namespace temper
