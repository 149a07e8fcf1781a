// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/pinned_revisions.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/rpc/status.h"
#include "common/storage/object_store.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

using Field = std::pair<std::string, std::string*>;

// Those that name something: to be asked for one is what chooses a field among others (`validation` has a URI or a
// share).
std::vector<Field> ReadFields(v1::JobSpec& spec) {
  std::vector<Field> fields;
  if (!spec.model().uri().empty()) fields.push_back({"spec.model.uri", spec.mutable_model()->mutable_uri()});
  if (!spec.data().uri().empty()) fields.push_back({"spec.data.uri", spec.mutable_data()->mutable_uri()});
  if (spec.has_data()) {
    for (v1::DataSource::Source& source : *spec.mutable_data()->mutable_sources()) {
      fields.push_back({"spec.data.sources.uri", source.mutable_uri()});
    }
  }
  if (!spec.validation().uri().empty()) {
    fields.push_back({"spec.validation.uri", spec.mutable_validation()->mutable_uri()});
  }
  if (!spec.method().distillation().teacher().empty()) {
    fields.push_back(
        {"spec.method.distillation.teacher", spec.mutable_method()->mutable_distillation()->mutable_teacher()});
  }
  if (!spec.lora().adapter().empty()) fields.push_back({"spec.lora.adapter", spec.mutable_lora()->mutable_adapter()});
  if (!spec.resume_from().empty()) fields.push_back({"spec.resume_from", spec.mutable_resume_from()});
  return fields;
}

// `commits` has those that were looked up, so that all files of a repository are of one.
absl::StatusOr<std::string> Pin(const std::string& uri, std::map<std::string, std::string>& commits) {
  if (SchemeOf(uri) != StorageScheme::kHub) return uri;
  absl::StatusOr<HubPlace> place = ParseHubUri(uri);
  if (!place.ok()) return place.status();
  HubPlace repository = *place;
  repository.path.clear();
  std::string& commit = commits[repository.Uri()];
  if (commit.empty()) {
    const auto pinned = PinnedUri(repository.Uri(), {kShortStorageDeadline});
    if (!pinned.ok()) return pinned.status();
    commit = ParseHubUri(*pinned)->revision;
  }
  place->revision = commit;
  return place->Uri();
}

}  // namespace

absl::Status PinRevisions(v1::JobSpec& spec) {
  std::map<std::string, std::string> commits;
  std::vector<FieldViolation> violations;
  for (const auto& [path, uri] : ReadFields(spec)) {
    auto pinned = Pin(*uri, commits);
    if (absl::IsUnavailable(pinned.status())) return pinned.status();
    if (pinned.ok()) {
      *uri = *std::move(pinned);
    } else {
      violations.push_back({path, std::string(pinned.status().message())});
    }
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

}  // namespace temper
