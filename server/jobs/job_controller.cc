// SPDX-License-Identifier: Apache-2.0
// The controller's life with the launcher: recovering, reconciling, shutting down. What clients and nodes say is in
// job_controller_clients.cc and job_controller_nodes.cc.
#include "server/jobs/job_controller.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/digest.h"
#include "server/jobs/timestamp.h"

namespace temper {
namespace {

// How often limits are looked at when nothing happens.
constexpr std::chrono::milliseconds kTick{500};

// 256 random bits.
std::string NewToken() {
  std::random_device random;
  std::string token;
  for (int i = 0; i < 8; ++i) absl::StrAppendFormat(&token, "%08x", random());
  return token;
}

std::string DeviceOf(const v1::JobSpec& spec) {
  switch (spec.resources().device()) {
    case v1::Resources::DEVICE_CPU:
    default:
      return "cpu";
  }
}

v1::FailureCause ToProto(FailureCause cause) {
  v1::FailureCause result = v1::FAILURE_CAUSE_UNSPECIFIED;
  if (cause == FailureCause::kNone) return result;
  v1::FailureCause_Parse(absl::StrCat("FAILURE_CAUSE_", std::string(FailureCauseName(cause))), &result);
  return result;
}

void Warn(const std::string& id, const absl::Status& status) {
  spdlog::warn("jobs/{}: {}", id, std::string(status.message()));
}

}  // namespace

void JobController::Inbox::Wake() {
  std::lock_guard lock(mutex);
  awake = true;
  changed.notify_all();
}

void JobController::Inbox::Add(GangExit exit) {
  std::lock_guard lock(mutex);
  exits.push_back(std::move(exit));
  awake = true;
  changed.notify_all();
}

JobController::JobController(JobStore& store, Launcher& launcher, const Clock& clock, JobControllerOptions options)
    : store_(store),
      launcher_(launcher),
      clock_(clock),
      options_(std::move(options)),
      inbox_(std::make_shared<Inbox>()) {
  launcher_.OnExit([inbox = inbox_](const GangExit& exit) { inbox->Add(exit); });
}

JobController::~JobController() { Shutdown(std::chrono::milliseconds(0)); }

void JobController::AddListener(Listener listener) { listeners_.push_back(std::move(listener)); }

absl::Status JobController::Recover() {
  auto records = store_.Unfinished();
  if (!records.ok()) return records.status();
  std::lock_guard reconciling(reconcile_mutex_);
  std::lock_guard lock(mutex_);
  for (JobRecord& record : *records) {
    const std::string id = record.id;
    LiveJob& live = live_[id];
    live.record = std::move(record);
    live.since = clock_.Monotonic();
    const int32_t epoch = live.record.life.epoch;
    if (!HasGang(live.record.life.state)) continue;
    auto row = store_.GetEpoch(id, epoch);
    if (!row.ok()) return row.status();
    live.epoch = *std::move(row);
    absl::Status status = launcher_.Recover({id, epoch}, live.epoch.run_dir, live.epoch.launcher_handle);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("can't recover the gang of jobs/", id, ": ", status.message()));
    }
    live.launched = true;
    live.recovered = true;
    if (status = Happen(live, job_event::ServerRestarted{}); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void JobController::Start(std::string server_address) {
  server_address_ = std::move(server_address);
  loop_ = std::thread([this] { Loop(); });
}

void JobController::Loop() {
  while (true) {
    Reconcile(server_address_);
    std::unique_lock lock(inbox_->mutex);
    inbox_->changed.wait_for(lock, kTick, [this] { return inbox_->awake || inbox_->stop_loop; });
    inbox_->awake = false;
    if (inbox_->stop_loop) return;
  }
}

void JobController::Shutdown(std::chrono::milliseconds limit) {
  {
    std::lock_guard lock(mutex_);
    shutting_down_ = true;
    events_changed_.notify_all();
  }
  {
    std::lock_guard lock(inbox_->mutex);
    inbox_->stop_loop = true;
    inbox_->changed.notify_all();
  }
  if (loop_.joinable()) loop_.join();
  if (limit.count() == 0) return;
  {
    std::lock_guard lock(mutex_);
    for (auto it = live_.begin(); it != live_.end();) {
      LiveJob& live = (it++)->second;
      if (absl::Status status = Happen(live, job_event::ServerRestarted{}); !status.ok()) Warn(live.record.id, status);
    }
  }
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (true) {
    Reconcile("");
    if (!AnyGang() || std::chrono::steady_clock::now() >= deadline) return;
    std::unique_lock lock(inbox_->mutex);
    inbox_->changed.wait_until(lock, std::min(deadline, std::chrono::steady_clock::now() + kTick),
                               [this] { return inbox_->awake; });
    inbox_->awake = false;
  }
}

bool JobController::AnyGang() const {
  std::lock_guard lock(mutex_);
  return std::any_of(live_.begin(), live_.end(),
                     [](const auto& entry) { return HasGang(entry.second.record.life.state); });
}

void JobController::Reconcile(const std::string& server_address) {
  std::lock_guard reconciling(reconcile_mutex_);
  std::vector<std::function<void()>> stops;
  std::vector<GangSpec> launches;
  {
    std::lock_guard lock(mutex_);
    TakeExits();
    EnforceLimits();
    StopGangs(stops);
    launches = StartJobs(server_address);
  }
  // Without the lock: a launcher may take its time.
  for (const auto& stop : stops) stop();
  for (const GangSpec& spec : launches) Launch(spec);
}

void JobController::TakeExits() {
  std::deque<GangExit> exits;
  {
    std::lock_guard lock(inbox_->mutex);
    exits.swap(inbox_->exits);
  }
  for (GangExit& exit : exits) {
    LiveJob* live = FindLive(exit.key.job_id);
    if (live == nullptr || live->record.life.epoch != exit.key.epoch || !HasGang(live->record.life.state)) continue;
    const job_event::ProcessesGone gone{{ToProto(exit.cause), exit.message}};
    if (absl::Status status = Happen(*live, gone); !status.ok()) {
      Warn(exit.key.job_id, status);
      // It is not forgotten: a later round tries again.
      std::lock_guard lock(inbox_->mutex);
      inbox_->exits.push_back(std::move(exit));
    }
  }
}

void JobController::EnforceLimits() {
  const MonotonicTime now = clock_.Monotonic();
  for (auto it = live_.begin(); it != live_.end();) {
    LiveJob& live = (it++)->second;
    std::optional<GangEnding> ending;
    if (live.record.life.state == v1::JOB_STATE_STARTING && live.launched && now - live.since > options_.attach_limit) {
      ending = {v1::FAILURE_CAUSE_LAUNCH, absl::StrCat("the gang did not report within ", options_.attach_limit.count(),
                                                       " s of its launch; its output is in ", live.epoch.run_dir)};
    }
    if (live.record.life.state == v1::JOB_STATE_RUNNING && now - live.last_heard > options_.silence_limit) {
      ending = {v1::FAILURE_CAUSE_HANG,
                absl::StrCat("no word from the gang for ", options_.silence_limit.count(), " s, though it runs")};
    }
    if (!ending) continue;
    if (absl::Status status = Happen(live, job_event::GangEnded{*ending}); !status.ok()) Warn(live.record.id, status);
  }
}

void JobController::StopGangs(std::vector<std::function<void()>>& launcher_calls) {
  for (auto it = live_.begin(); it != live_.end();) {
    LiveJob& live = (it++)->second;
    const JobLife& life = live.record.life;
    if (life.state != v1::JOB_STATE_STOPPING || live.launching || live.stop_asked) continue;
    const GangKey key{live.record.id, life.epoch};
    if (!live.launched) {
      if (absl::Status status = Happen(live, job_event::ProcessesGone{}); !status.ok()) Warn(key.job_id, status);
      continue;
    }
    // A gang that has said how it ended goes by itself, unless somebody is in a hurry.
    const bool leave_it = live.said_end && life.target == v1::JOB_TARGET_RUN && !shutting_down_;
    if (leave_it && clock_.Monotonic() - live.since <= options_.exit_limit) continue;
    SendStopOnce(live);
    live.stop_asked = true;
    // There is nothing that a gang of an earlier server could still tell us.
    if (live.recovered) {
      launcher_calls.push_back([this, key] { launcher_.Kill(key); });
    } else {
      launcher_calls.push_back([this, key] { launcher_.Stop(key); });
    }
  }
}

std::vector<GangSpec> JobController::StartJobs(const std::string& server_address) {
  if (shutting_down_) return {};
  std::vector<WaitingJob> waiting;
  std::vector<PlacedJob> placed;
  for (const auto& [id, live] : live_) {
    const JobLife& life = live.record.life;
    const v1::JobSpec& spec = live.record.job.spec();
    if (HasGang(life.state)) {
      placed.push_back({id, DeviceOf(spec), 1});
    } else {
      waiting.push_back(
          {id, DeviceOf(spec), 1, spec.priority(), FromTimestamp(live.record.job.create_time()), life.retry_at});
    }
  }
  const Schedule schedule = PlanSchedule(options_.slots, std::move(waiting), placed, clock_.Wall());
  for (const auto& [id, reason] : schedule.reasons) SetWaitingReason(*FindLive(id), reason);

  std::vector<GangSpec> launches;
  for (const std::string& id : schedule.start) {
    LiveJob& live = *FindLive(id);
    JobDraft draft = Draft(live);
    draft.Advance(job_event::SlotAssigned{}, options_.retry);
    GangSpec spec;
    spec.key = {id, draft.life().epoch};
    spec.server_address = server_address;
    spec.token = NewToken();
    spec.run_dir = options_.runs_dir / id / absl::StrCat("e", spec.key.epoch);
    EpochRecord epoch;
    epoch.job_id = id;
    epoch.epoch = spec.key.epoch;
    epoch.launch_time = clock_.Wall();
    epoch.run_dir = spec.run_dir.string();
    epoch.token_hash = Sha256Hex(spec.token);
    draft.update().epoch = epoch;
    if (absl::Status status = Commit(live, std::move(draft)); !status.ok()) {
      Warn(id, status);
      continue;
    }
    live.epoch = std::move(epoch);
    live.launching = true;
    launches.push_back(std::move(spec));
  }
  return launches;
}

void JobController::SetWaitingReason(LiveJob& live, std::string reason) {
  const bool first = live.waiting_reason.empty();
  live.waiting_reason = std::move(reason);
  // Told once to those who watch; a retry has its time in its state already.
  if (!first || live.record.life.retry_at) return;
  JobDraft draft = Draft(live);
  draft.Remark(v1::LOG_SEVERITY_INFO, live.waiting_reason);
  if (absl::Status status = Commit(live, std::move(draft)); !status.ok()) Warn(live.record.id, status);
}

void JobController::Launch(const GangSpec& spec) {
  const absl::StatusOr<std::string> handle = launcher_.Launch(spec);
  std::lock_guard lock(mutex_);
  LiveJob* live = FindLive(spec.key.job_id);
  if (live == nullptr) return;
  live->launching = false;
  live->launched = handle.ok();
  if (!handle.ok()) {
    const std::string message(handle.status().message());
    if (absl::Status status = Happen(*live, job_event::LaunchFailed{message}); !status.ok()) {
      // Still STARTING, with nothing that runs.
      Warn(spec.key.job_id, status);
      std::lock_guard inbox_lock(inbox_->mutex);
      inbox_->exits.push_back({spec.key, FailureCause::kLaunch, message});
    }
    return;
  }
  spdlog::info("jobs/{}: launched epoch {} in {}", spec.key.job_id, spec.key.epoch, spec.run_dir.string());
  live->epoch.launcher_handle = *handle;
  JobDraft draft = Draft(*live);
  draft.update().epoch = live->epoch;
  // If this fails, a later server finds the gang by its run directory.
  if (absl::Status status = Commit(*live, std::move(draft)); !status.ok()) Warn(spec.key.job_id, status);
  // Cancelled in the meantime?
  inbox_->Wake();
}

JobController::LiveJob* JobController::FindLive(const std::string& id) {
  const auto it = live_.find(id);
  return it == live_.end() ? nullptr : &it->second;
}

const JobController::LiveJob* JobController::FindLive(const std::string& id) const {
  const auto it = live_.find(id);
  return it == live_.end() ? nullptr : &it->second;
}

JobDraft JobController::Draft(const LiveJob& live) const {
  return JobDraft(live.record, clock_.Wall(), options_.max_log_events);
}

absl::Status JobController::Happen(LiveJob& live, const JobMachineEvent& event) {
  JobDraft draft = Draft(live);
  draft.Advance(event, options_.retry);
  return Commit(live, std::move(draft));
}

absl::Status JobController::Commit(LiveJob& live, JobDraft draft) {
  JobUpdate& update = draft.update();
  const v1::JobState before = live.record.life.state;
  const bool unchanged = update.events.empty() && update.positions.empty() && !update.epoch &&
                         update.record.life == live.record.life &&
                         update.record.dropped_log_events == live.record.dropped_log_events;
  if (unchanged) return absl::OkStatus();
  if (absl::Status status = store_.Update(update); !status.ok()) return status;

  live.record = std::move(update.record);
  Tell(live.record.job, update.events);
  for (const ReportPosition& position : update.positions) live.positions[position.rank] = position.sequence;
  const v1::JobState after = live.record.life.state;
  if (after != before) {
    spdlog::info("jobs/{}: {} -> {}{}{}", live.record.id, StateName(before), StateName(after),
                 live.record.life.reason.empty() ? "" : ": ", live.record.life.reason);
    live.since = clock_.Monotonic();
    live.waiting_reason.clear();
    if (!HasGang(after)) {
      LiveJob without_gang;
      without_gang.record = std::move(live.record);
      without_gang.since = live.since;
      live = std::move(without_gang);
    }
    inbox_->Wake();
  }
  events_changed_.notify_all();
  if (IsFinal(after)) live_.erase(std::string(live.record.id));
  return absl::OkStatus();
}

void JobController::Tell(const v1::Job& job, const std::vector<v1::JobEvent>& events) {
  for (const v1::JobEvent& event : events) {
    for (const Listener& listener : listeners_) listener(job, event);
  }
}

void JobController::SendStopOnce(LiveJob& live) {
  if (live.attachment == 0 || live.stop_sent || !live.send_stop) return;
  live.stop_sent = true;
  v1::Stop stop;
  stop.set_reason(live.record.life.reason);
  live.send_stop(stop);
}

}  // namespace temper
