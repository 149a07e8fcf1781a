// SPDX-License-Identifier: Apache-2.0
#include "server/web/web_api.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/rpc/timestamp.h"
#include "server/api/artifacts_api.h"
#include "server/api/audit.h"
#include "server/web/assets.h"
#include "server/web/job_json.h"
#include "server/web/job_streams.h"

namespace temper {
namespace {

constexpr int kSparklinePoints = 60;
constexpr size_t kMaxSparklines = 100;
constexpr size_t kMostFollowed = 16;  // jobs in one stream
constexpr int kHistoryPage = 1000;
// Of a long job the history is what came first and what came last.
constexpr int64_t kHistoryBegin = 2000;
constexpr int64_t kHistoryEnd = 100'000;
constexpr size_t kMostLogs = 5000;
constexpr int64_t kMostLogBytes = 4 << 20;

std::string NameOf(const HttpRequest& request) { return absl::StrCat("jobs/", request.path.at("job")); }

// 0 where it is missing or no number.
int64_t Number(const std::string& text) {
  int64_t number = 0;
  return absl::SimpleAtoi(text, &number) ? number : 0;
}

double Seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

template <typename Message>
HttpAnswer Answered(const absl::StatusOr<Message>& message) {
  return message.ok() ? HttpAnswer{.body = ToJson(*message)} : HttpError(message.status());
}

HttpAnswer AssetAnswer(const HttpRequest& request, const Asset& asset, const char* caching) {
  HttpAnswer answer{.type = std::string(asset.type),
                    .headers = {{"Cache-Control", caching}, {"Vary", "Accept-Encoding"}}};
  answer.body = std::string(request.takes_gzip ? asset.gzip : asset.text);
  if (request.takes_gzip) answer.headers.emplace_back("Content-Encoding", "gzip");
  return answer;
}

HttpAnswer File(const HttpRequest& request) {
  const auto assets = Assets().subspan(1);
  const auto asset =
      std::find_if(assets.begin(), assets.end(), [&](const Asset& one) { return one.name == request.path.at("file"); });
  if (asset == assets.end()) return HttpError(absl::NotFoundError("there is no such file"));
  return AssetAnswer(request, *asset, "public, max-age=31536000, immutable");
}

// What ListArtifacts calls the directory: an export, or the checkpoint that the request names.
std::string Parent(const HttpRequest& request) {
  const std::string step = request.Query("checkpoint");
  return step.empty() ? NameOf(request) : absl::StrCat(NameOf(request), "/checkpoints/", step);
}

HttpAnswer Stream(std::function<void(const HttpWrite&)> stream) {
  return {.type = "text/event-stream", .headers = {{"X-Accel-Buffering", "no"}}, .stream = std::move(stream)};
}

}  // namespace

std::vector<HttpRoute> WebApi::Routes() {
  const auto to = [this](auto method) {
    return [this, method](const HttpRequest& request) { return (this->*method)(request); };
  };
  const auto control = [this](const char* action, Change change) {
    return [this, action, change](const HttpRequest& request) { return Control(request, action, change); };
  };
  return {
      {"GET /", [](const HttpRequest& request) { return AssetAnswer(request, Assets().front(), "no-cache"); }},
      {"GET /assets/{file}", File},
      {"GET /api/v1/session", to(&WebApi::Session)},
      {"GET /api/v1/jobs", to(&WebApi::Jobs)},
      {"GET /api/v1/stream",
       [this](const HttpRequest&) {
         return Stream([this](const HttpWrite& write) { StreamJobs(controller_, feed_, write); });
       }},
      {"GET /api/v1/events", to(&WebApi::Events)},
      {"GET /api/v1/sparklines", to(&WebApi::Sparklines)},
      {"GET /api/v1/jobs/{job}", to(&WebApi::Job)},
      {"GET /api/v1/jobs/{job}/metrics", to(&WebApi::Metrics)},
      {"GET /api/v1/jobs/{job}/history", to(&WebApi::History)},
      {"GET /api/v1/jobs/{job}/checkpoints", to(&WebApi::Checkpoints)},
      {"GET /api/v1/jobs/{job}/artifacts", to(&WebApi::Artifacts)},
      {"POST /api/v1/jobs/{job}/tickets", to(&WebApi::Ticket)},
      {"POST /api/v1/jobs/{job}/cancel", control("CancelJob", &JobController::Cancel)},
      {"POST /api/v1/jobs/{job}/pause", control("PauseJob", &JobController::Pause)},
      {"POST /api/v1/jobs/{job}/resume", control("ResumeJob", &JobController::Resume)},
      {"GET /downloads/{ticket}/{file...}", to(&WebApi::Download)},
  };
}

HttpAnswer WebApi::Session(const HttpRequest& request) const {
  const auto now = std::chrono::duration<double>(clock_.Wall().time_since_epoch()).count();
  return {.body = nlohmann::json{
              {"version", version_},
              {"tokens", asks_for_tokens_},
              {"name", request.caller.name},
              {"role", RoleName(request.caller.role)},
              {"time",
               now}}.dump()};
}

HttpAnswer WebApi::Jobs(const HttpRequest& request) const {
  v1::ListJobsRequest list;
  list.set_page_size(500);
  list.set_page_token(request.Query("page_token"));
  auto answer = controller_.List(list);
  if (!answer.ok()) return HttpError(answer.status());
  for (v1::Job& job : *answer->mutable_jobs()) job = Summary(job);
  return {.body = ToJson(*answer)};
}

HttpAnswer WebApi::Job(const HttpRequest& request) const { return Answered(controller_.Get(NameOf(request))); }

HttpAnswer WebApi::Metrics(const HttpRequest& request) const {
  v1::QueryMetricsRequest query;
  query.set_parent(NameOf(request));
  query.set_first_step(Number(request.Query("first_step")));
  query.set_last_step(Number(request.Query("last_step")));
  query.set_max_points(static_cast<int32_t>(std::clamp<int64_t>(Number(request.Query("points")), 0, 10'000)));
  const auto metrics = controller_.Metrics(query);
  return metrics.ok() ? HttpAnswer{.body = MetricsJson(*metrics)} : HttpError(metrics.status());
}

HttpAnswer WebApi::History(const HttpRequest& request) const {
  const auto job = controller_.Get(NameOf(request));
  if (!job.ok()) return HttpError(job.status());
  const WallTime begin = FromTimestamp(job->create_time());
  std::vector<std::string> found;
  std::deque<size_t> logs;  // where, among them; the page shows the newest
  int64_t log_bytes = 0;
  StepTimes times;
  int64_t sequence = 0;
  while (sequence < job->last_sequence()) {
    const auto page = controller_.Events(job->name(), sequence, kHistoryPage);
    if (!page.ok()) return HttpError(page.status());
    if (page->events.empty()) break;
    for (const v1::JobEvent& event : page->events) {
      if (event.has_step()) times.Add(event.step().step(), Seconds(FromTimestamp(event.time()) - begin));
      if (event.has_step() || event.has_preflight() || event.has_verdict()) continue;
      found.push_back(ToJson(event));
      if (!event.has_log()) continue;
      logs.push_back(found.size() - 1);
      log_bytes += static_cast<int64_t>(found.back().size());
      while (logs.size() > kMostLogs || log_bytes > kMostLogBytes) {
        log_bytes -= static_cast<int64_t>(found[logs.front()].size());
        found[logs.front()] = std::string();
        logs.pop_front();
      }
    }
    sequence = page->events.back().sequence();
    if (sequence >= kHistoryBegin) sequence = std::max(sequence, job->last_sequence() - kHistoryEnd);
  }
  std::erase(found, "");
  return {.body = absl::StrCat("{\"last_sequence\":", sequence, ",\"times\":", times.Json(),
                               ",\"events\":", JsonArray(found), "}")};
}

HttpAnswer WebApi::Sparklines(const HttpRequest& request) const {
  std::vector<std::string> jobs = absl::StrSplit(request.Query("jobs"), ',', absl::SkipEmpty());
  jobs.resize(std::min(jobs.size(), kMaxSparklines));
  nlohmann::json lines = nlohmann::json::object();
  for (const std::string& job : jobs) {
    v1::QueryMetricsRequest query;
    query.set_parent(absl::StrCat("jobs/", job));
    query.set_max_points(kSparklinePoints);
    const auto metrics = controller_.Metrics(query);
    if (!metrics.ok()) continue;  // it was deleted
    auto& line = lines[job] = nlohmann::json::array();
    for (const v1::StepMetrics& step : metrics->steps()) line.push_back(step.loss());
  }
  return {.body = lines.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

HttpAnswer WebApi::Checkpoints(const HttpRequest& request) const {
  const auto checkpoints = controller_.Checkpoints(NameOf(request));
  if (!checkpoints.ok()) return HttpError(checkpoints.status());
  v1::ListCheckpointsResponse list;
  for (const v1::Checkpoint& checkpoint : *checkpoints) *list.add_checkpoints() = checkpoint;
  return {.body = ToJson(list)};
}

HttpAnswer WebApi::Artifacts(const HttpRequest& request) const {
  return Answered(ListArtifacts(controller_, Parent(request)));
}

HttpAnswer WebApi::Events(const HttpRequest& request) const {
  const std::vector<std::string> ids = absl::StrSplit(request.Query("jobs"), ',', absl::SkipEmpty());
  if (ids.empty() || ids.size() > kMostFollowed) {
    return HttpError(absl::InvalidArgumentError(
        absl::StrCat("jobs: must name 1 to ", kMostFollowed, " jobs, separated by commas, not ", ids.size())));
  }
  const std::string& after = request.last_event_id.empty() ? request.Query("after") : request.last_event_id;
  const std::vector<std::string> sequences = absl::StrSplit(after, ',');
  std::vector<JobPosition> jobs;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto job = controller_.Get(absl::StrCat("jobs/", ids[i]));
    if (!job.ok()) return HttpError(job.status());
    jobs.push_back({.job = job->name(), .sequence = i < sequences.size() ? Number(sequences[i]) : 0});
  }
  return Stream(
      [this, jobs = std::move(jobs)](const HttpWrite& write) { StreamEvents(controller_, feed_, jobs, write); });
}

HttpAnswer WebApi::Ticket(const HttpRequest& request) {
  v1::ReadArtifactRequest file;
  file.set_parent(Parent(request));
  file.set_path(request.Query("path"));
  if (const auto opened = OpenArtifact(controller_, file); !opened.ok()) return HttpError(opened.status());
  const std::string ticket = tickets_.Issue({.parent = file.parent(), .path = file.path()});
  return {.body = nlohmann::json{{"url", absl::StrCat("/downloads/", ticket, "/")}}.dump()};
}

HttpAnswer WebApi::Download(const HttpRequest& request) {
  const std::string& ticket = request.path.at("ticket");
  const auto file = tickets_.Find(ticket);
  if (!file) return HttpError(absl::NotFoundError("this address has expired: choose the file once more"));
  v1::ReadArtifactRequest read;
  read.set_parent(file->parent);
  read.set_path(file->path);
  auto opened = OpenArtifact(controller_, read);
  if (!opened.ok()) return HttpError(opened.status());
  std::shared_ptr<ObjectReader> reader = std::move(opened->reader);
  // The browser takes the name from the address.
  return {.type = "application/octet-stream",
          .headers = {{"Content-Disposition", "attachment"}},
          .size = reader->size(),
          .etag = absl::StrCat("\"", opened->sha256, "\""),
          .read = [this, reader, ticket](int64_t offset, int64_t length) {
            tickets_.Find(ticket);  // so that it is still good if this request breaks off
            return reader->ReadAt(offset, length);
          }};
}

HttpAnswer WebApi::Control(const HttpRequest& request, const char* action, Change change) {
  if (!asks_for_tokens_) {
    return HttpError(absl::PermissionDeniedError(
        "a page may change something only on a server that asks for tokens (temper-server --require-tokens)"));
  }
  const std::string name = NameOf(request);
  const auto job = (controller_.*change)(name, request.caller.name);
  Audit(request.peer, &request.caller, action, name, job.status());
  return Answered(job);
}

}  // namespace temper
