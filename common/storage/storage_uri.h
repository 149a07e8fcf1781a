// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace temper {

// URIs of storage:
//
//   /path, file:///path                     this machine
//   s3://bucket/path                        common/storage/s3.h
//   gs://bucket/path                        common/storage/gcs.h
//   abfs://container@account/path, abfss:// common/storage/azure.h
//   hf://org/name@revision/path,            common/storage/hub.h; read only
//   hf://datasets/org/name@revision/path
//
// All but the first may end in parameters, ?endpoint=…&region=…, which belong to whatever is below as well. Local paths
// have none: a '?' is a letter of theirs.
enum class StorageScheme { kLocal, kS3, kGcs, kAzure, kHub };

// For messages that say what a URI may be.
inline constexpr std::string_view kStorageForms =
    "file:///path, an absolute path, s3://bucket/path, gs://bucket/path, abfs://container@account/path or "
    "hf://org/name";

// Of file:// and of a path without a scheme: kLocal. Absent for any other scheme.
std::optional<StorageScheme> SchemeOf(std::string_view uri);

// "s3://bucket/a?region=x" → "s3://bucket/a"
std::string_view WithoutParameters(std::string_view uri);
// "?region=x", or ""
std::string_view ParametersOf(std::string_view uri);

struct UriParameter {
  std::string name;
  std::string value;  // unescaped
};
// INVALID_ARGUMENT when there is one that the scheme does not have. No value is quoted: it may be a secret.
absl::StatusOr<std::vector<UriParameter>> ReadParameters(std::string_view uri);

// What follows the scheme, without parameters and slashes at its end: "bucket/path". INVALID_ARGUMENT when a component
// is empty, "." or "..".
absl::StatusOr<std::string> PathOfRemote(std::string_view uri);

// Whether the URI has user information (RFC 3986, 3.2.1), a name, a password or a key. In abfs:// a container stands in
// its place.
bool HasUserInformation(std::string_view uri);

// "s3://bucket/a?region=x", "b/c" → "s3://bucket/a/b/c?region=x"
std::string UriBelow(std::string_view uri, std::string_view path);

struct UriOfName {
  std::string directory;  // with parameters
  std::string name;       // what is right below it
};
// "s3://bucket/a/b?region=x" → "s3://bucket/a?region=x" and "b". Absent where there is no name: "/", "s3://bucket",
// "hf://datasets/org/name@main".
std::optional<UriOfName> SplitUri(std::string_view uri);

// A place on the hub, of a model or of data.
struct HubPlace {
  bool dataset = false;
  std::string repository;         // "org/name"
  std::string revision = "main";  // a branch, a tag or a commit
  std::string path;               // below it, or ""

  // "hf://datasets/org/name@revision/path"
  std::string Uri() const;
  // Names a commit, which never changes.
  bool pinned() const;
};
// Of hf://. A revision's slashes are written %2F. INVALID_ARGUMENT for anything else.
absl::StatusOr<HubPlace> ParseHubUri(std::string_view uri);

}  // namespace temper
