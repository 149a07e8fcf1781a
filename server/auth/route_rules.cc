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
};

}  // namespace

std::optional<RouteRule> RuleOf(std::string_view route) {
  const auto* const entry =
      std::find_if(kRules.begin(), kRules.end(), [route](const Entry& candidate) { return candidate.route == route; });
  if (entry == kRules.end()) return std::nullopt;
  return entry->rule;
}

}  // namespace temper
