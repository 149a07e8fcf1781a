// SPDX-License-Identifier: Apache-2.0
#include "server/web/job_streams.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/web/job_json.h"

namespace temper {
namespace {

constexpr int kPageSize = 256;  // events that are read from the store at a time
// Whether the client is still there is looked at so often; and something is sent, so that proxies keep the line, and a
// client that is gone is noticed.
constexpr std::chrono::seconds kLook{1}, kSign{10};
// Then a client comes again, with a token that may be good no longer.
constexpr std::chrono::minutes kLongest{10};
// Between two messages: their readers are people, and each event of any job wakes whoever waits.
constexpr std::chrono::milliseconds kJobPause{100};
constexpr std::chrono::milliseconds kListPause{400};

// Waits for news. False: the stream is over.
class Follower {
 public:
  Follower(const EventFeed& feed, int64_t version, const HttpWrite& write)
      : feed_(feed), version_(version), write_(write) {}

  bool Next(EventFeed::News& news) {
    while (true) {
      news = feed_.Wait(version_, kLook);
      version_ = news.version;
      const auto now = std::chrono::steady_clock::now();
      const bool sign = now - last_sign_ >= kSign;
      if (news.stopping || now - begin_ >= kLongest || !write_(sign ? ":\n\n" : "")) return false;
      if (sign) last_sign_ = now;
      if (news.missed || !news.jobs.empty()) return true;
    }
  }

 private:
  const EventFeed& feed_;
  int64_t version_;
  const HttpWrite& write_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_sign_ = begin_;
};

// A job, and whether its last event has been written.
struct Followed {
  JobPosition position;
  bool complete = false;
};

std::string Positions(const std::vector<Followed>& jobs) {
  const auto sequence = [](std::string* text, const Followed& job) { absl::StrAppend(text, job.position.sequence); };
  return absl::StrJoin(jobs, ",", sequence);
}

// All that there is of one of `jobs`, whose position it moves on. False: the stream is over.
bool WriteEvents(const JobController& controller, const EventFeed& feed, std::vector<Followed>& jobs, Followed& job,
                 const HttpWrite& write) {
  auto& [name, sequence] = job.position;
  while (!feed.stopping()) {
    const auto page = controller.Events(name, sequence, kPageSize);
    if (!page.ok()) {
      // The client has seen events that there are not: the database is an older one.
      write("event: reload\ndata: {}\n\n");
      return false;
    }
    std::string text;
    for (const v1::JobEvent& event : page->events) {
      sequence = event.sequence();
      absl::StrAppend(&text, "id: ", Positions(jobs), "\ndata: {\"job\":\"", name, "\",\"event\":", ToJson(event),
                      "}\n\n");
    }
    if (!text.empty() && !write(text)) return false;
    job.complete = page->complete;
    if (job.complete || page->events.size() < kPageSize) return true;
  }
  return false;
}

}  // namespace

void StreamEvents(const JobController& controller, const EventFeed& feed, std::vector<JobPosition> jobs,
                  const HttpWrite& write) {
  Follower follower(feed, feed.version(), write);
  // The client learns that the stream has begun.
  if (!write("retry: 1000\n\n")) return;
  std::vector<Followed> followed;
  for (JobPosition& job : jobs) followed.push_back({.position = std::move(job)});
  EventFeed::News news{.missed = true};
  do {
    for (Followed& job : followed) {
      const bool has_news = news.missed || std::binary_search(news.jobs.begin(), news.jobs.end(), job.position.job);
      if (!job.complete && has_news && !WriteEvents(controller, feed, followed, job, write)) return;
    }
    if (std::all_of(followed.begin(), followed.end(), [](const Followed& job) { return job.complete; })) {
      write("event: end\ndata: {}\n\n");
      return;
    }
    feed.Pause(kJobPause);
  } while (follower.Next(news));
}

void StreamJobs(const JobController& controller, const EventFeed& feed, const HttpWrite& write) {
  Follower follower(feed, feed.version(), write);
  if (!write("retry: 1000\n\n")) return;
  EventFeed::News news;
  while (follower.Next(news)) {
    std::string text;
    if (news.missed) text = "event: reload\ndata: {}\n\n";
    for (const std::string& name : news.jobs) {
      const auto job = controller.Get(name);
      if (job.ok()) absl::StrAppend(&text, "data: ", ToJson(Summary(*job)), "\n\n");
    }
    if (!text.empty() && !write(text)) return;
    feed.Pause(kListPause);
  }
}

}  // namespace temper
