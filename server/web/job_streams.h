// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/jobs/job_controller.h"
#include "server/observe/http_server.h"
#include "server/web/event_feed.h"

namespace temper {

// Server-sent events (WHATWG HTML, 9.2).

// Writes all events of a job after `after_sequence`, and new ones as they happen, as JSON of v1::JobEvent; their ids
// are their sequence numbers, for Last-Event-ID. After the job's last one an event `end` says so; `reload` says that
// `after_sequence` is not of this job's life. Returns when the client goes.
void StreamJob(const JobController& controller, const EventFeed& feed, const std::string& job, int64_t after_sequence,
               const HttpWrite& write);

// Writes jobs that change from now on, a few times a second at most, as JSON of v1::Job without details (Summary()).
// Who comes back looks at the whole list once the stream has begun; so does who reads an event `reload`, for changes
// were missed.
void StreamJobs(const JobController& controller, const EventFeed& feed, const HttpWrite& write);

}  // namespace temper
