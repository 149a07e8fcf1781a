// SPDX-License-Identifier: Apache-2.0
#include "server/auth/route_rules.h"

#include <algorithm>
#include <array>

namespace temper {
namespace {

struct Entry {
  std::string_view route;
  RouteRule rule;
};

constexpr RouteRule kAnyone{Admission::kAnyone, Role::kReader};
constexpr RouteRule kReader{Admission::kToken, Role::kReader};
constexpr RouteRule kSubmitter{Admission::kToken, Role::kSubmitter};
constexpr RouteRule kOwner{Admission::kOwnJob, Role::kSubmitter};
constexpr RouteRule kAdmin{Admission::kToken, Role::kAdmin};
constexpr RouteRule kGang{Admission::kGang, Role::kReader};

constexpr std::array kRules = {
    Entry{"/temper.v1.TrainingService/GetJob", kReader},
    Entry{"/temper.v1.TrainingService/ListJobs", kReader},
    Entry{"/temper.v1.TrainingService/WatchJob", kReader},
    Entry{"/temper.v1.TrainingService/QueryMetrics", kReader},
    Entry{"/temper.v1.TrainingService/ListCheckpoints", kReader},
    Entry{"/temper.v1.TrainingService/ListFamilies", kReader},
    Entry{"/temper.v1.TrainingService/CreateJob", kSubmitter},
    Entry{"/temper.v1.TrainingService/UploadFile", kSubmitter},
    Entry{"/temper.v1.TrainingService/CancelJob", kOwner},
    Entry{"/temper.v1.TrainingService/PauseJob", kOwner},
    Entry{"/temper.v1.TrainingService/ResumeJob", kOwner},
    Entry{"/temper.v1.TrainingService/DeleteJob", kOwner},
    Entry{"/temper.v1.TrainingService/ListArtifacts", kOwner},
    Entry{"/temper.v1.TrainingService/ReadArtifact", kOwner},

    Entry{"/temper.v1.TokenService/CreateToken", kAdmin},
    Entry{"/temper.v1.TokenService/ListTokens", kAdmin},
    Entry{"/temper.v1.TokenService/RevokeToken", kAdmin},

    Entry{"/temper.v1.WorkerService/Attach", kGang},

    // gRPC's own. Probes have no token, and the schema is no secret.
    Entry{"/grpc.health.v1.Health/Check", kAnyone},
    Entry{"/grpc.health.v1.Health/Watch", kAnyone},
    Entry{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kAnyone},

    Entry{"GET /metrics", kReader},
    Entry{"GET /healthz", kAnyone},

    // The web page itself says nothing of jobs; what it shows comes from these.
    Entry{"GET /", kAnyone},
    Entry{"GET /assets/{file}", kAnyone},
    Entry{"GET /api/v1/session", kReader},
    Entry{"GET /api/v1/jobs", kReader},
    Entry{"GET /api/v1/stream", kReader},
    Entry{"GET /api/v1/events", kReader},
    Entry{"GET /api/v1/sparklines", kReader},
    Entry{"GET /api/v1/jobs/{job}", kReader},
    Entry{"GET /api/v1/jobs/{job}/metrics", kReader},
    Entry{"GET /api/v1/jobs/{job}/history", kReader},
    Entry{"GET /api/v1/jobs/{job}/checkpoints", kReader},
    Entry{"GET /api/v1/jobs/{job}/artifacts", kOwner},
    Entry{"POST /api/v1/jobs/{job}/tickets", kOwner},
    Entry{"POST /api/v1/jobs/{job}/cancel", kOwner},
    Entry{"POST /api/v1/jobs/{job}/pause", kOwner},
    Entry{"POST /api/v1/jobs/{job}/resume", kOwner},
    // By a ticket, which only those get who may have the file.
    Entry{"GET /downloads/{ticket}/{file...}", kAnyone},
};

}  // namespace

std::optional<RouteRule> RuleOf(std::string_view route) {
  const auto* const entry =
      std::find_if(kRules.begin(), kRules.end(), [route](const Entry& candidate) { return candidate.route == route; });
  if (entry == kRules.end()) return std::nullopt;
  return entry->rule;
}

}  // namespace temper
