// SPDX-License-Identifier: Apache-2.0
// The controller's life with the launcher: recovering, reconciling, shutting down. What clients and nodes say is in
// job_controller_clients.cc and job_controller_nodes.cc.
#include "server/jobs/job_controller.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/fault_point.h"
#include "common/rpc/timestamp.h"
#include "common/secret.h"
#include "common/storage/job_layout.h"
#include "common/storage/object_store.h"
#include "common/storage/publication.h"

namespace temper {
namespace {

// How often limits are looked at when nothing happens.
constexpr std::chrono::milliseconds kTick{500};

std::string DeviceOf(const v1::JobSpec& spec) {
  switch (spec.resources().device()) {
    case v1::Resources::DEVICE_CUDA:
      return "cuda";
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

// A preflight looks at model and data, and computes nothing.
bool UsesGpus(const JobRecord& record) {
  return !record.life.preflight && record.job.spec().resources().device() == v1::Resources::DEVICE_CUDA;
}

// "the gang", or "node 1 of 2".
std::string NodeName(size_t node, size_t nodes) {
  return nodes == 1 ? "the gang" : absl::StrCat("node ", node, " of ", nodes);
}

// The first of those that have not attached.
std::string Unheard(const std::vector<std::string>& incarnations) {
  const auto missing = std::find(incarnations.begin(), incarnations.end(), "");
  return NodeName(static_cast<size_t>(missing - incarnations.begin()), incarnations.size());
}

// Whether a gang that is being stopped is stopped for a failure of its own.
bool HasFailed(const JobLife& life) {
  return life.ending && life.ending->cause != v1::FAILURE_CAUSE_UNSPECIFIED && !KeepsProgress(life);
}

void Warn(const std::string& id, const absl::Status& status) {
  spdlog::warn("jobs/{}: {}", id, std::string(status.message()));
}

}  // namespace

// 0, in both: of a server that knew of one only.
int32_t JobController::RanksPerNode(const JobRecord& record) {
  return record.life.preflight ? 1 : std::max(1, record.job.spec().resources().ranks_per_node());
}

int32_t JobController::NodesOf(const JobRecord& record) {
  return record.life.preflight ? 1 : std::max(1, record.job.spec().resources().nodes());
}

bool JobController::LiveJob::AnyAttached() const {
  return std::any_of(nodes.begin(), nodes.end(), [](const LiveNode& node) { return node.attachment != 0; });
}

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

void JobController::Inbox::Add(NodeLoss exit) {
  std::lock_guard lock(mutex);
  node_losses.push_back(std::move(exit));
  awake = true;
  changed.notify_all();
}

JobController::JobController(JobStore& store, Launcher& launcher, const Clock& clock, JobControllerOptions options)
    : store_(store),
      launcher_(launcher),
      clock_(clock),
      options_(std::move(options)),
      inbox_(std::make_shared<Inbox>()) {
  launcher_.OnExit([inbox = inbox_](const GangExit& exit) { inbox->Add(exit); },
                   [inbox = inbox_](const NodeLoss& exit) { inbox->Add(exit); });
}

JobController::~JobController() { Shutdown(); }

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
    if (auto& retry_at = live.record.life.retry_at; retry_at) {
      // The clock may have been set back meanwhile.
      retry_at = std::min(*retry_at, clock_.Wall() + options_.retry.longest_backoff);
    }
    const int32_t epoch = live.record.life.epoch;
    if (!HasGang(live.record.life.state)) continue;
    auto row = store_.GetEpoch(id, epoch);
    if (!row.ok()) return row.status();
    live.epoch = *std::move(row);
    const int32_t nodes = NodesOf(live.record);
    absl::Status status = launcher_.Recover({id, epoch}, nodes, live.epoch.run_dir, live.epoch.launcher_handle);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("can't recover the gang of jobs/", id, ": ", status.message()));
    }
    live.launched = true;
    live.adopted = true;
    live.nodes.resize(static_cast<size_t>(nodes));
    for (LiveNode& node : live.nodes) node.last_heard = clock_.Monotonic();
    for (int32_t rank = -nodes; rank < RanksOf(live.record); ++rank) {
      const auto position = store_.LastReport(id, epoch, rank);
      if (!position.ok()) return position.status();
      live.positions[rank] = *position;
    }
    spdlog::info("jobs/{}: adopted epoch {}", id, epoch);
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

void JobController::Shutdown() {
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
}

void JobController::StopGangs(std::chrono::milliseconds limit) {
  {
    std::lock_guard lock(mutex_);
    for (auto it = live_.begin(); it != live_.end();) {
      LiveJob& live = (it++)->second;
      if (absl::Status status = Happen(live, job_event::ServerStops{}); !status.ok()) Warn(live.record.id, status);
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
  std::deque<GangExit> exits;
  std::deque<NodeLoss> node_losses;
  {
    std::lock_guard lock(inbox_->mutex);
    exits.swap(inbox_->exits);
    node_losses.swap(inbox_->node_losses);
  }
  for (const GangExit& exit : exits) TidyUp(exit);
  std::vector<std::function<void()>> stops;
  std::vector<GangSpec> launches;
  {
    std::lock_guard lock(mutex_);
    TakeNodeLosses(std::move(node_losses));
    TakeExits(std::move(exits));
    EnforceLimits();
    StopGangs(stops);
    launches = StartJobs(server_address);
  }
  for (const auto& stop : stops) stop();
  for (const GangSpec& spec : launches) Launch(spec);
  DeleteOldJobs();
  CollectUploads();
}

void JobController::DeleteOldJobs() {
  constexpr std::chrono::hours kInterval{1};
  const MonotonicTime now = clock_.Monotonic();
  if (options_.keep_ended.count() == 0 || (deleted_old_jobs_ && now - *deleted_old_jobs_ < kInterval)) return;
  deleted_old_jobs_ = now;
  const WallTime oldest = clock_.Wall() - options_.keep_ended;
  const JobFilter ended = {.states = {v1::JOB_STATE_SUCCEEDED, v1::JOB_STATE_FAILED, v1::JOB_STATE_CANCELLED}};
  JobPage page;
  do {
    auto next = store_.List(ended, /*page_size=*/1000, page.next_page_token);
    if (!next.ok()) return spdlog::warn("jobs that ended long ago: {}", std::string(next.status().message()));
    page = *std::move(next);
    for (const v1::Job& job : page.jobs) {
      if (FromTimestamp(job.end_time()) >= oldest) continue;
      if (absl::Status status = Delete(job.name()); !status.ok()) {
        return spdlog::warn("{}: {}", job.name(), std::string(status.message()));
      }
      spdlog::info("{}: ended more than {} days ago, and is deleted", job.name(), options_.keep_ended.count() / 24);
    }
  } while (!page.next_page_token.empty());
}

void JobController::CollectUploads() {
  constexpr std::chrono::minutes kInterval{10};
  const MonotonicTime now = clock_.Monotonic();
  if (options_.uploads == nullptr || (collected_uploads_ && now - *collected_uploads_ < kInterval)) return;
  collected_uploads_ = now;
  const absl::Status status = options_.uploads->Collect([this] { return UploadsInUse(); });
  if (!status.ok()) spdlog::warn("uploads that no job reads: {}", std::string(status.message()));
}

absl::StatusOr<std::set<std::string>> JobController::UploadsInUse() const {
  std::set<std::string> digests;
  const auto add = [&digests](const std::string& uri) {
    if (std::string digest = UploadStore::DigestIn(uri); !digest.empty()) digests.insert(std::move(digest));
  };
  JobPage page;
  do {
    auto next = store_.List({}, /*page_size=*/1000, page.next_page_token);
    if (!next.ok()) return next.status();
    page = *std::move(next);
    for (const v1::Job& job : page.jobs) {
      add(job.spec().data().uri());
      for (const v1::DataSource::Source& source : job.spec().data().sources()) add(source.uri());
      add(job.spec().validation().uri());
    }
  } while (!page.next_page_token.empty());
  return digests;
}

// Before its job's state says that the gang is gone: who sees that finds no half-written files.
void JobController::TidyUp(const GangExit& exit) {
  const auto record = store_.Get(exit.key.job_id);
  if (!record.ok() || record->life.epoch != exit.key.epoch || !HasGang(record->life.state)) return;
  const auto output = ObjectStore::Open(record->job.spec().output().uri(), {kShortStorageDeadline});
  absl::Status status = output.status();
  if (status.ok()) status = RemoveUncommitted(**output, exit.key.job_id, exit.key.epoch);
  if (status.ok() && record->life.export_committed) {
    status = RemoveOtherExports(**output, exit.key.job_id, exit.key.epoch);
  }
  // What can't be removed now is removed after the next gang, or stays: no reason to hold the job up.
  if (!status.ok()) Warn(exit.key.job_id, status);
}

void JobController::TakeNodeLosses(std::deque<NodeLoss> exits) {
  for (NodeLoss& exit : exits) {
    LiveJob* live = FindLive(exit.key.job_id);
    if (live == nullptr || live->record.life.epoch != exit.key.epoch || !HasGang(live->record.life.state)) continue;
    GangEnding ending{ToProto(exit.cause), exit.message, /*secondhand=*/!exit.speechless};
    // No rank was started yet.
    const bool starting = live->record.life.state == v1::JOB_STATE_STARTING;
    if (starting && exit.cause == FailureCause::kRankLost) ending.cause = v1::FAILURE_CAUSE_LAUNCH;
    if (absl::Status status = Happen(*live, job_event::GangEnded{ending}); !status.ok()) {
      Warn(exit.key.job_id, status);
      std::lock_guard lock(inbox_->mutex);
      inbox_->node_losses.push_back(std::move(exit));
    }
  }
}

void JobController::TakeExits(std::deque<GangExit> exits) {
  for (GangExit& exit : exits) {
    LiveJob* live = FindLive(exit.key.job_id);
    if (live == nullptr || live->record.life.epoch != exit.key.epoch || !HasGang(live->record.life.state)) continue;
    job_event::ProcessesGone gone{{ToProto(exit.cause), exit.message}};
    // The earlier server did not live to launch it, or it did not live to find us.
    if (live->adopted && !live->epoch.AnyHeard()) {
      gone.ending = {v1::FAILURE_CAUSE_PREEMPTED, "the server was restarted while it launched the gang"};
    }
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
    const v1::JobState state = live.record.life.state;
    const bool unheard = state == v1::JOB_STATE_CHECKING && !live.epoch.AnyHeard();
    if ((state == v1::JOB_STATE_STARTING || unheard) && live.launched && now - live.since > options_.attach_limit) {
      ending = {v1::FAILURE_CAUSE_LAUNCH,
                absl::StrCat(Unheard(live.epoch.incarnations), " did not report within ", options_.attach_limit.count(),
                             " s of its launch; its output is in ", live.epoch.run_dir)};
    }
    const bool at_work = state == v1::JOB_STATE_RUNNING || (state == v1::JOB_STATE_CHECKING && !unheard);
    for (size_t node = 0; at_work && node < live.nodes.size(); ++node) {
      if (now - live.nodes[node].last_heard <= options_.silence_limit) continue;
      ending = {v1::FAILURE_CAUSE_HANG, absl::StrCat("no word from ", NodeName(node, live.nodes.size()), " for ",
                                                     options_.silence_limit.count(), " s, though it runs")};
      break;
    }
    if (!ending) continue;
    if (absl::Status status = Happen(live, job_event::GangEnded{*ending}); !status.ok()) Warn(live.record.id, status);
  }
}

void JobController::StopGangs(std::vector<std::function<void()>>& launcher_calls) {
  for (auto it = live_.begin(); it != live_.end();) {
    LiveJob& live = (it++)->second;
    const JobLife& life = live.record.life;
    if (life.state != v1::JOB_STATE_STOPPING || live.launching) continue;
    const GangKey key{live.record.id, life.epoch};
    if (!live.launched) {
      if (absl::Status status = Happen(live, job_event::ProcessesGone{}); !status.ok()) Warn(key.job_id, status);
      continue;
    }
    const auto stopping_for = clock_.Monotonic() - live.since;
    // A gang that has said how it ended goes by itself, unless somebody is in a hurry.
    const bool leave_it = live.said_end && life.target == v1::JOB_TARGET_RUN && !shutting_down_;
    if (leave_it && stopping_for <= options_.exit_limit) {
      // One node has said it: where it has failed, the others are to know.
      if (live.nodes.size() > 1 && HasFailed(life)) TellToStop(live);
      continue;
    }
    TellToStop(live);
    const bool has_time = KeepsProgress(life) && live.AnyAttached() && !shutting_down_;
    if (live.stop_asked || (has_time && stopping_for <= options_.pause_limit)) continue;
    live.stop_asked = true;
    launcher_calls.push_back([this, key] { launcher_.Stop(key); });
  }
}

std::vector<GangSpec> JobController::StartJobs(const std::string& server_address) {
  if (shutting_down_) return {};
  std::vector<WaitingJob> waiting;
  std::vector<PlacedJob> placed;
  std::vector<std::string> unchecked;
  int checking = 0;
  for (const auto& [id, live] : live_) {
    const JobLife& life = live.record.life;
    const v1::JobSpec& spec = live.record.job.spec();
    if (HasGang(life.state)) {
      if (!life.preflight) placed.push_back({id, DeviceOf(spec), RanksOf(live.record)});
      checking += life.preflight;
    } else if (life.state == v1::JOB_STATE_QUEUED && life.preflight) {
      unchecked.push_back(id);
    } else if (life.state == v1::JOB_STATE_QUEUED) {
      waiting.push_back({id, DeviceOf(spec), RanksOf(live.record), spec.priority(),
                         FromTimestamp(live.record.job.create_time()), life.retry_at});
    }
  }
  const Schedule schedule = PlanSchedule(options_.slots, std::move(waiting), placed, clock_.Wall());
  for (auto& [id, live] : live_) live.queue_position = 0;
  int position = 0;
  for (const std::string& id : schedule.queue) FindLive(id)->queue_position = ++position;
  for (const auto& [id, reason] : schedule.reasons) SetWaitingReason(*FindLive(id), reason);

  // Oldest first; one whose user waits before all others.
  std::sort(unchecked.begin(), unchecked.end(), [this](const std::string& a, const std::string& b) {
    const JobRecord &first = FindLive(a)->record, &second = FindLive(b)->record;
    return std::tuple(!first.life.preflight_only, FromTimestamp(first.job.create_time()), a) <
           std::tuple(!second.life.preflight_only, FromTimestamp(second.job.create_time()), b);
  });
  std::vector<std::string> start = schedule.start;
  for (const std::string& id : unchecked) {
    if (checking++ < std::max(1, options_.max_preflights)) {
      start.push_back(id);
    } else {
      SetWaitingReason(*FindLive(id), "waits for its preflight: others are being looked at");
    }
  }

  std::vector<GangSpec> launches;
  for (const std::string& id : start) {
    LiveJob& live = *FindLive(id);
    JobDraft draft = Draft(live);
    draft.Advance(job_event::SlotAssigned{}, options_.retry);
    GangSpec spec;
    spec.key = {id, draft.life().epoch};
    spec.server_address = server_address;
    spec.token = NewSecret();
    spec.run_dir = options_.runs_dir / id / absl::StrCat("e", spec.key.epoch);
    spec.nodes = NodesOf(live.record);
    if (UsesGpus(live.record)) spec.gpus_per_node = RanksPerNode(live.record);
    EpochRecord epoch;
    epoch.job_id = id;
    epoch.epoch = spec.key.epoch;
    epoch.launch_time = clock_.Wall();
    epoch.run_dir = spec.run_dir.string();
    epoch.token_hash = Sha256Hex(spec.token);
    epoch.incarnations.resize(static_cast<size_t>(spec.nodes));
    draft.update().epoch = epoch;
    if (absl::Status status = Commit(live, std::move(draft)); !status.ok()) {
      Warn(id, status);
      continue;
    }
    live.epoch = std::move(epoch);
    live.nodes.resize(static_cast<size_t>(spec.nodes));
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

// The job's own checkpoints that its next gang may go on from: those that the index has, and those that the gang before
// committed without living to say so. What an older gang, thought dead, adds later is garbage.
absl::Status JobController::FindCheckpoints(const GangKey& key) {
  if (key.epoch <= 1) return absl::OkStatus();
  const auto record = store_.Get(key.job_id);
  if (!record.ok()) return record.status();
  const auto index = store_.Checkpoints(key.job_id);
  if (!index.ok()) return index.status();
  const auto output = ObjectStore::Open(record->job.spec().output().uri(), {kShortStorageDeadline});
  if (!output.ok()) return output.status();
  const auto committed = ListCommittedCheckpoints(**output, key.job_id);
  if (!committed.ok()) return committed.status();

  std::map<CheckpointKey, v1::Checkpoint> known;
  for (const v1::Checkpoint& checkpoint : *index) known[{checkpoint.step(), checkpoint.epoch()}] = checkpoint;
  std::lock_guard lock(mutex_);
  LiveJob* live = FindLive(key.job_id);
  if (live == nullptr) return absl::OkStatus();
  JobDraft draft = Draft(*live);
  EpochRecord epoch = live->epoch;
  for (const CheckpointKey& found : *committed) {
    const std::string directory = CheckpointDirectory(key.job_id, found);
    if (known.erase(found) == 0) {
      if (found.epoch != key.epoch - 1) continue;
      const auto manifest = ReadManifest(**output, directory);
      if (!manifest.ok()) continue;  // the rank would say what is wrong with it, and take another
      draft.AddCheckpoint(found, (*output)->UriOf(directory), *manifest);
    }
    epoch.resume_from.push_back((*output)->UriOf(directory));
  }
  for (const auto& [gone, checkpoint] : known) draft.update().removed_checkpoints.push_back(gone);
  draft.update().epoch = epoch;
  if (absl::Status status = Commit(*live, std::move(draft)); !status.ok()) return status;
  live->epoch = std::move(epoch);
  return absl::OkStatus();
}

void JobController::Launch(const GangSpec& spec) {
  FaultPoint("server.launch.before");
  absl::StatusOr<std::string> handle;
  if (absl::Status found = FindCheckpoints(spec.key); found.ok()) {
    handle = launcher_.Launch(spec);
  } else {
    handle = absl::Status(found.code(), absl::StrCat("the job's checkpoints can't be listed: ", found.message()));
  }
  FaultPoint("server.launch.after");
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

absl::Status JobController::Happen(LiveJob& live, const JobMachineEvent& event, const std::string& caller) {
  JobDraft draft = Draft(live);
  draft.Advance(event, options_.retry, caller);
  return Commit(live, std::move(draft));
}

bool JobController::Changes(const LiveJob& live, const JobUpdate& update) {
  return !update.events.empty() || !update.positions.empty() || update.epoch || !update.checkpoints.empty() ||
         !update.removed_checkpoints.empty() || !(update.record.life == live.record.life) ||
         update.record.dropped_log_events != live.record.dropped_log_events;
}

absl::Status JobController::Commit(LiveJob& live, JobDraft draft) {
  JobUpdate& update = draft.update();
  if (!Changes(live, update)) return absl::OkStatus();
  FaultPoint("server.commit.before");
  if (absl::Status status = store_.Update(update); !status.ok()) return status;
  FaultPoint("server.commit.after");
  Adopt(live, update);
  return absl::OkStatus();
}

void JobController::Adopt(LiveJob& live, JobUpdate& update) {
  const v1::JobState before = live.record.life.state;
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
}

void JobController::Tell(const v1::Job& job, const std::vector<v1::JobEvent>& events) {
  for (const v1::JobEvent& event : events) {
    for (const Listener& listener : listeners_) listener(job, event);
  }
}

void JobController::TellToStop(LiveJob& live) {
  v1::AttachResponse command;
  v1::Stop& stop = *command.mutable_stop();
  stop.set_reason(live.record.life.reason);
  stop.set_checkpoint(KeepsProgress(live.record.life));
  const std::optional<GangEnding>& ending = live.record.life.ending;
  stop.set_dump_stacks(ending && ending->cause == v1::FAILURE_CAUSE_HANG);
  stop.set_gang_lost(HasFailed(live.record.life));
  for (LiveNode& node : live.nodes) {
    if (node.attachment == 0) continue;
    // A second word makes a difference only if it is a harder one.
    if (node.stop_sent && (stop.checkpoint() || !node.stop_sent->checkpoint())) continue;
    node.stop_sent = stop;
    node.send(command);
  }
}

void JobController::TellToMeet(LiveJob& live) {
  const bool wanted = live.nodes.size() > 1 && live.record.life.state == v1::JOB_STATE_RUNNING;
  if (!wanted || !live.epoch.AllHeard() || !live.meeting) return;
  v1::AttachResponse command;
  *command.mutable_meeting() = *live.meeting;
  for (LiveNode& node : live.nodes) {
    if (node.attachment != 0 && !std::exchange(node.told_to_meet, true)) node.send(command);
  }
}

}  // namespace temper
