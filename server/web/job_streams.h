// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/jobs/job_controller.h"
#include "server/observe/http_server.h"
#include "server/web/event_feed.h"

namespace temper {

// Server-sent events (WHATWG HTML, 9.2). A browser has six connections to a server for all of its tabs, so one stream
// carries all jobs that a page follows.

// Up to where a client knows the events of a job.
struct JobPosition {
  std::string job;  // "jobs/a"
  int64_t sequence = 0;
};

// Writes all events of `jobs` after their positions, and new ones as they happen: {"job": "jobs/a", "event": {…}}, the
// JSON of v1::JobEvent. Their ids are the positions of all jobs, "12,7", for Last-Event-ID. After the last one of all
// an event `end` says so; `reload` says that a position is not of its job's life. Returns when the client goes, or the
// server stops.
void StreamEvents(const JobController& controller, const EventFeed& feed, std::vector<JobPosition> jobs,
                  const HttpWrite& write);

// Writes jobs that change from now on, a few times a second at most, as JSON of v1::Job without details (Summary()).
// Who comes back looks at the whole list once the stream has begun; so does who reads an event `reload`, for changes
// were missed.
void StreamJobs(const JobController& controller, const EventFeed& feed, const HttpWrite& write);

}  // namespace temper
