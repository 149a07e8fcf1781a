// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/status.h"
#include "common/storage/storage_uri.h"
#include "temper/v1/job.pb.h"

namespace temper {

// A field of a job that names a place of storage.
struct UriField {
  std::string path;  // "spec.model.uri"
  std::string uri;
  bool written = false;  // by the job, not only read
};

// All that are set.
std::vector<UriField> UrisOf(const v1::JobSpec& spec);

// Which places jobs may name, for they are read and written with the server's rights, not their submitters'. Any
// thread.
class UriPolicy {
 public:
  // Everything is allowed.
  UriPolicy() = default;
  // Only what one of `patterns` allows: file:///dir/** (or /dir/**), s3://bucket/dir/** and the like of the other
  // schemes what is below, and the directory itself; without /** that very place. hf:// is allowed in any revision.
  // `uploads` may be read as well.
  //
  // INVALID_ARGUMENT: a pattern is none of these.
  static absl::StatusOr<UriPolicy> Parse(const std::vector<std::string>& patterns,
                                         const std::filesystem::path& uploads);

  // INVALID_ARGUMENT with a violation for each place that is not allowed.
  //
  // Local paths are taken as the reader takes them (percent-encoding decoded), may have no component "." or "..", and
  // are judged by where their symbolic links lead now: whoever can change links in an allowed directory is trusted.
  absl::Status Check(const v1::JobSpec& spec) const;

 private:
  struct Place {
    StorageScheme scheme = StorageScheme::kLocal;
    std::string path;        // canonical, or bucket/key; without a slash at its end
    std::string parameters;  // another endpoint is another place
    bool below = false;      // what is below it, too
    bool read_only = false;  // where it is allowed: for fields that are not written
  };

  static absl::StatusOr<Place> PlaceOf(std::string_view uri);
  static absl::StatusOr<Place> PlaceInStore(StorageScheme scheme, std::string_view uri);
  bool Allows(const Place& place, bool written) const;

  bool everything_ = true;
  std::vector<Place> allowed_;
};

}  // namespace temper
