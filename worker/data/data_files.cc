// SPDX-License-Identifier: Apache-2.0
#include "worker/data/data_files.h"

#include <fnmatch.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

bool IsDataFile(const std::string& name) {
  for (const char* end : {".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"}) {
    if (name.ends_with(end)) return true;
  }
  return false;
}

// Files directly in the store's root for which `wanted` holds, as URIs, sorted.
absl::StatusOr<std::vector<std::string>> Select(const ObjectStore& store,
                                                const std::function<bool(const std::string&)>& wanted) {
  const absl::StatusOr<std::vector<ObjectInfo>> objects = store.List("");
  if (!objects.ok()) return objects.status();
  std::vector<std::string> files;
  for (const ObjectInfo& object : *objects) {
    if (object.path.find('/') == std::string::npos && wanted(object.path)) files.push_back(store.UriOf(object.path));
  }
  return files;
}

// Those right in a directory.
absl::StatusOr<std::vector<std::string>> FilesIn(std::string_view uri) {
  const absl::StatusOr<std::unique_ptr<ObjectStore>> directory = ObjectStore::Open(uri);
  if (!directory.ok()) return directory.status();
  absl::StatusOr<std::vector<std::string>> files = Select(**directory, IsDataFile);
  if (files.ok() && files->empty()) {
    return absl::NotFoundError(absl::StrCat("the directory ", std::string(uri), " has no data: no file right in it ",
                                            "ends in .jsonl, .jsonl.gz, .jsonl.zst or .parquet. Correct data.uri"));
  }
  return files;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FindDataFiles(std::string_view uri) {
  const std::optional<UriOfName> parts = SplitUri(uri);
  if (!parts && SchemeOf(uri) != StorageScheme::kLocal) return FilesIn(uri);  // all of a bucket or of a repository
  if (!parts) {
    return absl::InvalidArgumentError(absl::StrCat("data.uri \"", std::string(uri),
                                                   "\" is not the URI of a file or directory. Give ",
                                                   std::string(kStorageForms), ", and what is below it"));
  }
  const std::string& name = parts->name;
  const absl::StatusOr<std::unique_ptr<ObjectStore>> parent = ObjectStore::Open(parts->directory);
  if (!parent.ok()) return parent.status();
  const absl::StatusOr<bool> is_directory = (*parent)->IsDirectory(name);
  if (is_directory.ok() && *is_directory) return FilesIn(uri);
  const absl::StatusOr<bool> exists = (*parent)->Exists(name);
  const bool literal = exists.ok() && *exists;
  if (literal || name.find_first_of("*?[") == std::string::npos) {
    return std::vector<std::string>{(*parent)->UriOf(name)};
  }
  absl::StatusOr<std::vector<std::string>> files = Select(
      **parent, [&name](const std::string& file) { return fnmatch(name.c_str(), file.c_str(), FNM_PERIOD) == 0; });
  if (files.ok() && files->empty()) {
    return absl::NotFoundError(absl::StrCat("no file matches ", std::string(uri),
                                            ". Correct data.uri; the path must exist where the worker runs"));
  }
  return files;
}

}  // namespace temper
