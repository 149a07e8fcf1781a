// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "common/clock.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// What Prometheus sees of the server itself: temper_server_*. Any thread.
class ServerMetrics {
 public:
  // `registry` must outlive it.
  ServerMetrics(prometheus::Registry& registry, const std::string& version, WallTime start);

  // An RpcObserver.
  void CountRpc(std::string_view method, const absl::Status& status);

  // A CertificateWatcher's observer.
  void CountTlsReload(const absl::Status& status);

  // Set before every scrape.
  void SetJobs(const std::map<v1::JobState, int64_t>& jobs_by_state);
  void SetWatchers(int watchers);
  void SetClockDrift(std::chrono::nanoseconds drift);
  // Of the data directory.
  void SetDisk(const std::filesystem::space_info& disk);
  void SetTlsExpiry(WallTime expiry);

 private:
  prometheus::Family<prometheus::Counter>& rpcs_;
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Gauge& watchers_;
  prometheus::Gauge& clock_drift_;
  prometheus::Gauge& disk_free_;
  prometheus::Gauge& disk_size_;
  prometheus::Family<prometheus::Counter>& tls_reloads_;
  prometheus::Family<prometheus::Gauge>& tls_expiry_;
};

}  // namespace temper
