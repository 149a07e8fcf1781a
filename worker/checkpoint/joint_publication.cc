// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/joint_publication.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "worker/parallel/agree.h"

namespace temper {
namespace {

std::string ToText(const std::vector<ManifestFile>& files) {
  nlohmann::json json = nlohmann::json::array();
  for (const ManifestFile& file : files) json.push_back({file.path, file.size, file.sha256});
  return json.dump();
}

std::vector<ManifestFile> FromText(const std::string& text) {
  std::vector<ManifestFile> files;
  for (const auto& file : nlohmann::json::parse(text)) {
    files.push_back({file[0].get<std::string>(), file[1].get<int64_t>(), file[2].get<std::string>()});
  }
  return files;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Publication>> BeginTogether(ObjectStore& store, const std::string& directory,
                                                           const std::string& job, int32_t epoch, ProcessGroup* ranks) {
  const bool first = ranks == nullptr || ranks->rank() == 0;
  using Begun = absl::StatusOr<std::unique_ptr<Publication>>;
  Begun publication =
      first ? Publication::Begin(store, directory, job, epoch) : Begun(Publication::Join(store, directory, job, epoch));
  if (absl::Status all = Agree(publication.status(), ranks); !all.ok()) return all;
  return publication;
}

void CollectFiles(Publication& publication, ProcessGroup* ranks) {
  if (ranks == nullptr) return;
  const std::vector<std::string> files = ranks->AllGatherText(ToText(publication.manifest().files));
  for (int rank = 1; ranks->rank() == 0 && rank < ranks->size(); ++rank) publication.Include(FromText(files[rank]));
}

absl::Status CommitTogether(Publication& publication, ProcessGroup* ranks) {
  CollectFiles(publication, ranks);
  const bool first = ranks == nullptr || ranks->rank() == 0;
  return Agree(first ? publication.Commit() : absl::OkStatus(), ranks);
}

}  // namespace temper
