// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/rpc/status.h"
#include "common/rpc/timestamp.h"
#include "server/jobs/job_controller.h"
#include "server/jobs/job_name.h"
#include "server/jobs/job_spec.h"
#include "server/jobs/pinned_revisions.h"

namespace temper {
namespace {

constexpr int kDefaultPageSize = 50;
constexpr int kMaxPageSize = 1000;
constexpr int kDefaultPoints = 1000;
constexpr int kMaxPoints = 10'000;
// Each job that has not ended is in memory.
constexpr size_t kMaxSpecBytes = 256 << 10;

absl::Status NoSuchJob(const std::string& id) {
  return WithReason(absl::NotFoundError(absl::StrCat("there is no jobs/", id)), "JOB_NOT_FOUND",
                    {{"job", JobName(id)}});
}

absl::Status TellIfMissing(absl::Status status, const std::string& id) {
  return absl::IsNotFound(status) ? NoSuchJob(id) : status;
}

bool IsUuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
    if (hyphen ? text[i] != '-' : !absl::ascii_isxdigit(text[i])) return false;
  }
  return true;
}

// Of what a request_id stands for.
std::string BodyDigest(const v1::JobSpec& spec, const v1::CreateJobRequest& request) {
  Sha256 digest;
  digest.Update(request.job_id());
  digest.Update(request.preflight_only() ? "\npreflight\n" : "\n");
  if (request.has_verify()) digest.Update(absl::StrCat("verify\n", request.verify().SerializeAsString(), "\n"));
  digest.Update(spec.SerializeAsString());
  return digest.Hex();
}

absl::Status JobEnded(const v1::Job& job, const std::string& advice) {
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat(job.name(), " has ended already (", StateName(job.state()), "): ", advice)),
                    "JOB_ENDED", {{"job", job.name()}, {"state", StateName(job.state())}});
}

absl::Status BeingCancelled(const v1::Job& job) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat(job.name(), " is being cancelled")), "JOB_CANCELLED",
                    {{"job", job.name()}});
}

}  // namespace

absl::StatusOr<v1::Job> JobController::Create(v1::CreateJobRequest request, const std::string& caller) {
  if (!request.job().has_spec()) return InvalidFields({{"job.spec", "is required"}});
  if (!request.job_id().empty()) {
    if (absl::Status status = CheckJobId(request.job_id(), "job_id"); !status.ok()) return status;
  }
  if (!request.request_id().empty() && !IsUuid(request.request_id())) {
    return InvalidFields({{"request_id", "must be a UUID, for example 123e4567-e89b-42d3-a456-426614174000"}});
  }
  if (request.has_verify()) {
    auto options = CompleteVerifyOptions(request.verify());
    if (!options.ok()) return options.status();
    *request.mutable_verify() = *std::move(options);
  }
  if (const size_t size = request.job().spec().ByteSizeLong(); size > kMaxSpecBytes) {
    return InvalidFields({{"job.spec", absl::StrCat("has ", size, " bytes, and may have ", kMaxSpecBytes)}});
  }
  auto spec = request.has_verify() ? CompleteVerifySpec(request.job().spec()) : CompleteJobSpec(request.job().spec());
  if (!spec.ok()) return spec.status();
  const auto find_repeated = [&]() -> absl::StatusOr<std::optional<v1::Job>> {
    if (shutting_down_) return absl::UnavailableError("the server shuts down: try again later");
    if (request.request_id().empty()) return std::nullopt;
    return FindRepeated(request, *spec);
  };
  {
    // Before a hub is asked: who repeats a call gets its job, though there may be no hub now.
    std::lock_guard lock(mutex_);
    auto earlier = find_repeated();
    if (!earlier.ok()) return earlier.status();
    if (*earlier) return **std::move(earlier);
  }
  v1::JobSpec pinned = *spec;
  if (absl::Status status = PinRevisions(pinned); !status.ok()) return status;
  std::lock_guard lock(mutex_);
  auto earlier = find_repeated();
  if (!earlier.ok()) return earlier.status();
  if (*earlier) return **std::move(earlier);
  return CreateNew(request, BodyDigest(*spec, request), std::move(pinned), caller);
}

absl::StatusOr<std::optional<v1::Job>> JobController::FindRepeated(const v1::CreateJobRequest& request,
                                                                   const v1::JobSpec& spec) const {
  auto earlier = store_.FindByRequestId(request.request_id());
  if (absl::IsNotFound(earlier.status())) return std::nullopt;
  if (!earlier.ok()) return earlier.status();
  if (earlier->request_digest == BodyDigest(spec, request)) return View(earlier->job);
  const std::string name = earlier->job.name();
  return WithReason(absl::AlreadyExistsError(absl::StrCat("request_id ", request.request_id(), " was used before, for ",
                                                          name, ", with another body: use a new request_id")),
                    "REQUEST_ID_REUSED", {{"job", name}});
}

absl::StatusOr<v1::Job> JobController::CreateNew(const v1::CreateJobRequest& request, std::string digest,
                                                 v1::JobSpec spec, const std::string& caller) {
  JobRecord record;
  record.request_id = request.request_id();
  if (!record.request_id.empty()) record.request_digest = std::move(digest);
  record.id = request.job_id();
  auto is_taken = [this](const std::string& id) { return !absl::IsNotFound(store_.Get(id).status()); };
  if (record.id.empty() && !request.validate_only()) {
    do record.id = ChooseJobId(spec.display_name());
    while (is_taken(record.id));
  } else if (!record.id.empty() && is_taken(record.id)) {
    return WithReason(absl::AlreadyExistsError(absl::StrCat("there is a ", JobName(record.id),
                                                            " already: choose another id, or leave it to the server")),
                      "JOB_EXISTS", {{"job", JobName(record.id)}});
  }
  if (!request.validate_only() && live_.size() >= options_.max_unfinished) {
    return WithReason(absl::ResourceExhaustedError(absl::StrCat(
                          "the server has as many jobs that have not ended as it takes, ", options_.max_unfinished,
                          " (temper-server --max-unfinished-jobs): wait, or cancel some")),
                      "TOO_MANY_JOBS");
  }
  if (!record.id.empty()) record.job.set_name(JobName(record.id));
  // To the job's life a verification is a preflight: a gang that takes no slot and trains nothing.
  record.life.preflight_only = request.preflight_only() || request.has_verify();
  record.life.preflight = record.life.preflight_only || (options_.max_preflights > 0 && !spec.skip_preflight());
  record.job.set_preflight_only(request.preflight_only());
  if (request.has_verify()) *record.job.mutable_verify() = request.verify();
  *record.job.mutable_spec() = std::move(spec);
  JobDraft draft(std::move(record), clock_.Wall(), options_.max_log_events);
  draft.Begin(caller);
  JobUpdate& update = draft.update();
  if (request.validate_only()) {
    update.record.job.clear_create_time();
    update.record.job.clear_last_sequence();
    return update.record.job;
  }
  if (absl::Status status = store_.Create(update); !status.ok()) return status;
  LiveJob& live = live_[update.record.id];
  live.record = std::move(update.record);
  live.since = clock_.Monotonic();
  Tell(live.record.job, update.events);
  inbox_->Wake();
  return live.record.job;
}

v1::Job JobController::View(v1::Job job) const {
  const auto id = ParseJobName(job.name(), "name");
  const LiveJob* live = id.ok() ? FindLive(*id) : nullptr;
  // One that was read before its state changed waits for nothing that we know of now.
  if (live == nullptr || live->record.life.state != job.state()) return job;
  job.set_queue_position(live->queue_position);
  if (live->waiting_reason.empty()) return job;
  job.set_reason(job.reason().empty() ? live->waiting_reason : absl::StrCat(job.reason(), "; ", live->waiting_reason));
  return job;
}

absl::StatusOr<v1::Job> JobController::Get(const std::string& name) const {
  const auto id = ParseJobName(name, "name");
  if (!id.ok()) return id.status();
  std::lock_guard lock(mutex_);
  auto record = store_.Get(*id);
  if (!record.ok()) return TellIfMissing(record.status(), *id);
  return View(std::move(record->job));
}

absl::StatusOr<v1::ListJobsResponse> JobController::List(const v1::ListJobsRequest& request) const {
  std::vector<FieldViolation> violations;
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    violations.push_back({"page_size", absl::StrCat("must be 0 to ", kMaxPageSize, ", not ", request.page_size())});
  }
  JobFilter filter{.owner = request.owner(), .labels = {request.labels().begin(), request.labels().end()}};
  for (int i = 0; i < request.states_size(); ++i) {
    if (!v1::JobState_IsValid(request.states(i)) || request.states(i) == v1::JOB_STATE_UNSPECIFIED) {
      violations.push_back({absl::StrCat("states[", i, "]"), "is no state of a job"});
    }
    filter.states.push_back(request.states(i));
  }
  if (!violations.empty()) return InvalidFields(violations);
  const int page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  // Without the lock: to look through many jobs takes its time.
  auto page = store_.List(filter, page_size, request.page_token());
  if (absl::IsInvalidArgument(page.status())) {
    return InvalidFields({{"page_token", std::string(page.status().message())}});
  }
  if (!page.ok()) return page.status();
  v1::ListJobsResponse response;
  std::lock_guard lock(mutex_);
  for (v1::Job& job : page->jobs) *response.add_jobs() = View(std::move(job));
  response.set_next_page_token(page->next_page_token);
  *response.mutable_time() = ToTimestamp(clock_.Wall());
  return response;
}

absl::StatusOr<v1::Job> JobController::Request(const std::string& name, const JobMachineEvent& event,
                                               const std::string& caller) {
  const auto id = ParseJobName(name, "name");
  if (!id.ok()) return id.status();
  std::lock_guard lock(mutex_);
  if (LiveJob* live = FindLive(*id); live != nullptr) {
    if (absl::Status status = Happen(*live, event, caller); !status.ok()) return status;
    inbox_->Wake();
  }
  auto record = store_.Get(*id);
  if (!record.ok()) return TellIfMissing(record.status(), *id);
  return View(std::move(record->job));
}

absl::StatusOr<v1::Job> JobController::Cancel(const std::string& name, const std::string& caller) {
  auto job = Request(name, job_event::CancelRequested{}, caller);
  if (!job.ok()) return job;
  if (job->state() == v1::JOB_STATE_SUCCEEDED || job->state() == v1::JOB_STATE_FAILED) {
    return JobEnded(*job, "there is nothing to cancel");
  }
  return job;
}

absl::StatusOr<v1::Job> JobController::Pause(const std::string& name, const std::string& caller) {
  auto job = Request(name, job_event::PauseRequested{}, caller);
  if (!job.ok()) return job;
  if (IsFinal(job->state())) return JobEnded(*job, "there is nothing to pause");
  if (job->preflight_only() || job->has_verify()) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat(name, " trains nothing: cancel it instead")),
                      "PREFLIGHT_ONLY", {{"job", name}});
  }
  return job->target() == v1::JOB_TARGET_CANCEL ? BeingCancelled(*job) : job;
}

absl::StatusOr<v1::Job> JobController::Resume(const std::string& name, const std::string& caller) {
  auto job = Request(name, job_event::ResumeRequested{}, caller);
  if (!job.ok()) return job;
  if (IsFinal(job->state())) {
    return JobEnded(*job, "submit another job with resume_from to go on from one of its checkpoints");
  }
  return job->target() == v1::JOB_TARGET_CANCEL ? BeingCancelled(*job) : job;
}

absl::Status JobController::Delete(const std::string& name) {
  const auto id = ParseJobName(name, "name");
  if (!id.ok()) return id.status();
  {
    std::lock_guard lock(mutex_);
    const auto record = store_.Get(*id);
    if (!record.ok()) return TellIfMissing(record.status(), *id);
    if (!IsFinal(record->life.state)) {
      return WithReason(absl::FailedPreconditionError(absl::StrCat(
                            name, " has not ended (", StateName(record->life.state), "): cancel it first")),
                        "JOB_NOT_ENDED", {{"job", name}, {"state", StateName(record->life.state)}});
    }
    if (absl::Status status = store_.Delete(*id); !status.ok()) return status;
  }
  // What its gangs printed. Nobody else writes there any more.
  std::error_code ignored;
  std::filesystem::remove_all(options_.runs_dir / *id, ignored);
  return absl::OkStatus();
}

absl::StatusOr<v1::QueryMetricsResponse> JobController::Metrics(const v1::QueryMetricsRequest& request) const {
  const auto id = ParseJobName(request.parent(), "parent");
  if (!id.ok()) return id.status();
  const int64_t last = request.last_step() == 0 ? INT64_MAX : request.last_step();
  std::vector<FieldViolation> violations;
  if (request.first_step() < 0) violations.push_back({"first_step", "must be at least 0"});
  if (last < request.first_step()) violations.push_back({"last_step", "must not be below first_step"});
  if (request.max_points() < 0 || request.max_points() == 1 || request.max_points() > kMaxPoints) {
    violations.push_back({"max_points", absl::StrCat("must be 0 (", kDefaultPoints, " points) or 2 to ", kMaxPoints,
                                                     ", not ", request.max_points())});
  }
  if (!violations.empty()) return InvalidFields(violations);
  if (const auto record = store_.Get(*id); !record.ok()) return TellIfMissing(record.status(), *id);
  return store_.Metrics(*id, request.first_step(), last,
                        request.max_points() == 0 ? kDefaultPoints : request.max_points());
}

absl::StatusOr<std::vector<v1::Checkpoint>> JobController::Checkpoints(const std::string& name) const {
  const auto id = ParseJobName(name, "parent");
  if (!id.ok()) return id.status();
  const auto record = store_.Get(*id);
  if (!record.ok()) return TellIfMissing(record.status(), *id);
  auto checkpoints = store_.Checkpoints(*id);
  if (!checkpoints.ok()) return checkpoints;
  for (v1::Checkpoint& checkpoint : *checkpoints) {
    checkpoint.set_best(checkpoint.step() > 0 && checkpoint.step() == record->job.best_validation().step());
  }
  return checkpoints;
}

absl::StatusOr<EventPage> JobController::Events(const std::string& name, int64_t after_sequence, int limit) const {
  const auto id = ParseJobName(name, "name");
  if (!id.ok()) return id.status();
  if (after_sequence < 0) return InvalidFields({{"after_sequence", "must be at least 0"}});
  // The store alone: a reader waits for nobody's lock.
  auto events = store_.Events(*id, after_sequence, limit);
  if (!events.ok()) return events.status();
  EventPage page;
  page.events = *std::move(events);
  // The last event of a job is a state. After any other there is no need to look at the job.
  if (!page.events.empty() && !page.events.back().has_state()) return page;
  auto record = store_.Get(*id);
  if (!record.ok()) return TellIfMissing(record.status(), *id);
  const int64_t last = record->job.last_sequence();
  if (after_sequence > last) {
    return absl::OutOfRangeError(
        absl::StrCat("after_sequence ", after_sequence, " is past the last event of ", name, ", which is ", last));
  }
  page.complete = IsFinal(record->job.state()) && after_sequence + static_cast<int64_t>(page.events.size()) >= last;
  return page;
}

absl::StatusOr<bool> JobController::WaitForEvents(const std::string& name, int64_t after_sequence,
                                                  std::chrono::milliseconds timeout) const {
  const auto id = ParseJobName(name, "name");
  if (!id.ok()) return id.status();
  std::unique_lock lock(mutex_);
  auto has_news = [&] {
    const LiveJob* live = FindLive(*id);
    return shutting_down_ || live == nullptr || live->record.job.last_sequence() > after_sequence;
  };
  const bool news = events_changed_.wait_for(lock, timeout, has_news);
  if (shutting_down_) return absl::UnavailableError("the server shuts down: reconnect with the last sequence seen");
  if (FindLive(*id) != nullptr) return news;
  auto record = store_.Get(*id);
  if (!record.ok()) return TellIfMissing(record.status(), *id);
  return true;
}

}  // namespace temper
