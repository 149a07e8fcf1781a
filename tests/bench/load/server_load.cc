// SPDX-License-Identifier: Apache-2.0
// Plays gangs, watchers and clients to a temper-server: `server_load FILE`. The file is JSON:
//
//   address       HOST:PORT
//   gangs         [{job, token}], which were launched; each has `ranks` ranks that report every `period_ms`
//   phases        [{name, seconds, warm_up, watchers, one_job}], one after the other: the watchers are spread over the
//                 jobs, or all watch the first one; what is measured in the first `warm_up` seconds is left out
//   calls         whether clients create, cancel, get and list jobs meanwhile
//   slow_watcher  whether one more watches the first job without reading, until the middle of the last phase
//
// A JSON object a line comes out: {"begins": …} and {"ends": …, figures} of each phase, and in the end the account of
// what was reported and seen, for tests/load_process.py to compare with the database.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/load/caller.h"
#include "tests/bench/load/fake_gang.h"
#include "tests/bench/load/latencies.h"
#include "tests/bench/load/load_watcher.h"
#include "tests/bench/load/own_channel.h"

namespace temper {
namespace {

using nlohmann::json;
using std::chrono::duration;
using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// For what can take a while only if something is wrong.
constexpr std::chrono::seconds kLimit{60};

steady_clock::duration Seconds(const json& value) {
  return duration_cast<steady_clock::duration>(duration<double>(value.get<double>()));
}

json ToJson(const Latencies::Summary& summary) {
  return {{"count", summary.count},
          {"p50_ms", summary.p50_ms},
          {"p99_ms", summary.p99_ms},
          {"longest_ms", summary.longest_ms}};
}

void Print(const json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

class Load {
 public:
  explicit Load(const json& config)
      : config_(config),
        address_(config["address"].get<std::string>()),
        period_(milliseconds(config["period_ms"].get<int64_t>())),
        stub_(v1::TrainingService::NewStub(OwnChannel(address_))) {
    for (const json& gang : config["gangs"]) {
      gangs_.emplace_back(address_, gang["job"].get<std::string>(), gang["token"].get<std::string>(),
                          config["ranks"].get<int>(), acknowledgements_);
    }
    next_gang_ = gangs_.begin();
  }

  bool Run() {
    for (FakeGang& gang : gangs_) gang.Tick(steady_clock::now());
    if (!Wait([this] { return AllAcknowledged(); })) return Fail("the gangs could not attach");
    if (config_["slow_watcher"]) slow_ = Watch(gangs_.front(), /*held=*/true);
    if (config_["calls"]) caller_ = std::make_unique<Caller>(address_, gangs_.front().job());
    const json& phases = config_["phases"];
    for (size_t i = 0; i < phases.size(); ++i) RunPhase(phases[i], i + 1 == phases.size());
    std::vector<std::string> failures;
    if (caller_ != nullptr) failures = caller_->Stop();
    if (!Wait([this] { return AllAcknowledged() && AllSeen(); })) return Fail("reports were not acknowledged or seen");
    Print(Account(failures));
    return true;
  }

 private:
  bool Fail(const char* what) {
    std::fprintf(stderr, "server_load: %s\n", what);
    return false;
  }

  void RunPhase(const json& phase, bool last) {
    watchers_.clear();
    for (int i = 0; i < phase["watchers"].get<int>(); ++i) {
      const auto index = phase["one_job"] ? 0 : static_cast<size_t>(i) % gangs_.size();
      watchers_.push_back(Watch(*std::next(gangs_.begin(), static_cast<std::ptrdiff_t>(index)), /*held=*/false));
    }
    Print({{"begins", phase["name"]}});
    const auto start = steady_clock::now();
    TickUntil(start + Seconds(phase["warm_up"]));
    TakeFigures();
    const auto end = start + Seconds(phase["seconds"]);
    if (last && slow_ != nullptr) {
      TickUntil(start + (end - start) / 2);
      slow_->Release();
    }
    TickUntil(end);
    json figures = TakeFigures();
    figures["ends"] = phase["name"];
    Print(figures);
  }

  // Figures since the last call.
  json TakeFigures() {
    json figures = {{"report_to_watch", ToJson(delays_.Take())},
                    {"report_to_acknowledgement", ToJson(acknowledgements_.Take())},
                    {"late_ticks", ToJson(lateness_.Take())}};
    if (caller_ != nullptr) {
      for (const auto& [method, summary] : caller_->Take()) figures["calls"][method] = ToJson(summary);
    }
    return figures;
  }

  // Gangs report one after the other, each once in a period.
  void TickUntil(steady_clock::time_point end) {
    while (next_tick_ < end) {
      std::this_thread::sleep_until(next_tick_);
      const auto now = steady_clock::now();
      lateness_.Add(now - next_tick_);
      next_gang_->Tick(now);
      if (++next_gang_ == gangs_.end()) next_gang_ = gangs_.begin();
      next_tick_ += period_ / static_cast<int64_t>(gangs_.size());
      if (now - connected_ > milliseconds(100)) Connect();
    }
  }

  // Whoever has lost his stream comes back.
  void Connect() {
    for (FakeGang& gang : gangs_) gang.Connect();
    for (const auto& watcher : watchers_) watcher->Connect();
    if (slow_ != nullptr) slow_->Connect();
    connected_ = steady_clock::now();
  }

  template <typename Condition>
  bool Wait(Condition condition) {
    const auto deadline = steady_clock::now() + kLimit;
    while (!condition()) {
      if (steady_clock::now() > deadline) return false;
      Connect();
      std::this_thread::sleep_for(milliseconds(50));
    }
    next_tick_ = steady_clock::now();
    return true;
  }

  std::unique_ptr<LoadWatcher> Watch(const FakeGang& gang, bool held) {
    return std::make_unique<LoadWatcher>(address_, gang, LastSequence(gang.job()), held ? unmeasured_ : delays_, held);
  }

  int64_t LastSequence(const std::string& job) {
    v1::GetJobRequest request;
    request.set_name("jobs/" + job);
    v1::Job response;
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + kLimit);
    stub_->GetJob(&context, request, &response);
    return response.last_sequence();
  }

  bool AllAcknowledged() const {
    return std::all_of(gangs_.begin(), gangs_.end(), [](const FakeGang& gang) { return gang.all_acknowledged(); });
  }

  bool AllSeen() {
    if (slow_ != nullptr && slow_->newest() < LastSequence(slow_->job())) return false;
    return std::all_of(watchers_.begin(), watchers_.end(),
                       [this](const auto& watcher) { return watcher->newest() >= LastSequence(watcher->job()); });
  }

  json Account(const std::vector<std::string>& failures) const {
    json account = {{"failed_calls", failures}, {"gangs", json::array()}, {"watchers", json::array()}};
    for (const FakeGang& gang : gangs_) {
      account["gangs"].push_back(
          {{"job", gang.job()}, {"ticks", gang.ticks()}, {"acknowledged_at_breaks", gang.acknowledged_at_breaks()}});
    }
    for (const auto& watcher : watchers_) account["watchers"].push_back(AccountOf(*watcher));
    if (slow_ != nullptr) account["slow_watcher"] = AccountOf(*slow_);
    return account;
  }

  static json AccountOf(const LoadWatcher& watcher) {
    json breaks = json::array();
    for (const LoadWatcher::Break& each : watcher.breaks()) {
      breaks.push_back({{"newest", each.newest}, {"code", each.code}, {"message", each.message}});
    }
    return {{"job", watcher.job()},
            {"first", watcher.first()},
            {"newest", watcher.newest()},
            {"gaps", watcher.gaps()},
            {"breaks", breaks}};
  }

  const json config_;
  const std::string address_;
  const steady_clock::duration period_;
  const std::unique_ptr<v1::TrainingService::Stub> stub_;
  Latencies delays_, acknowledgements_, lateness_, unmeasured_;
  std::list<FakeGang> gangs_;
  std::vector<std::unique_ptr<LoadWatcher>> watchers_;
  std::unique_ptr<LoadWatcher> slow_;
  std::unique_ptr<Caller> caller_;
  std::list<FakeGang>::iterator next_gang_;
  steady_clock::time_point next_tick_;
  steady_clock::time_point connected_;
};

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: server_load FILE\n");
    return 2;
  }
  const auto config = nlohmann::json::parse(std::ifstream(argv[1]));
  return temper::Load(config).Run() ? 0 : 1;
}
