// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/clock.h"
#include "server/jobs/job_controller.h"
#include "server/observe/http_server.h"
#include "server/web/download_tickets.h"
#include "server/web/event_feed.h"

namespace temper {

// What the web page needs of the server: itself, and JSON of what gRPC's clients see, by the same rules
// (server/auth/route_rules.h). Any thread.
class WebApi {
 public:
  // All must outlive it. `asks_for_tokens`: only then a page may change something. Without them whoever gets the
  // browser to send a request would be everybody's admin.
  WebApi(JobController& controller, const Clock& clock, std::string version, bool asks_for_tokens)
      : controller_(controller),
        clock_(clock),
        version_(std::move(version)),
        asks_for_tokens_(asks_for_tokens),
        tickets_(clock) {}

  // A listener of the controller.
  void OnEvent(const v1::Job& job) { feed_.OnEvent(job.name()); }

  std::vector<HttpRoute> Routes();
  // Ends all streams.
  void Stop() { feed_.Stop(); }

 private:
  HttpAnswer Session(const HttpRequest& request) const;
  HttpAnswer Jobs(const HttpRequest& request) const;
  HttpAnswer Job(const HttpRequest& request) const;
  HttpAnswer Metrics(const HttpRequest& request) const;
  HttpAnswer History(const HttpRequest& request) const;
  HttpAnswer Sparklines(const HttpRequest& request) const;
  HttpAnswer Checkpoints(const HttpRequest& request) const;
  HttpAnswer Artifacts(const HttpRequest& request) const;
  HttpAnswer Events(const HttpRequest& request) const;
  HttpAnswer Ticket(const HttpRequest& request);
  HttpAnswer Download(const HttpRequest& request);

  using Change = absl::StatusOr<v1::Job> (JobController::*)(const std::string& name, const std::string& by);
  // Pause, Resume or Cancel, called `action` in the log.
  HttpAnswer Control(const HttpRequest& request, const char* action, Change change);

  JobController& controller_;
  const Clock& clock_;
  const std::string version_;
  const bool asks_for_tokens_;
  EventFeed feed_;
  DownloadTickets tickets_;
};

}  // namespace temper
