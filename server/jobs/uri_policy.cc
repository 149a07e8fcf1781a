// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/uri_policy.h"

#include <algorithm>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/storage/object_store.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBelow = "/**";

// As readers take it. Of a pattern for names (/data/part-*.jsonl) the last component stays as it is.
absl::StatusOr<std::string> LocalPathOf(std::string_view uri) {
  const auto store = ObjectStore::Open(uri);
  if (!store.ok()) return store.status();
  return (*store)->LocalPath("").value_or("");
}

bool HasDots(std::string_view path) {
  const std::vector<std::string> components = absl::StrSplit(std::string(path), '/');
  return std::any_of(components.begin(), components.end(),
                     [](const std::string& component) { return component == "." || component == ".."; });
}

std::string WithoutSlash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

// "org/name@main/path" → "org/name/path"; of a pattern for an organization, all of it.
std::string WithoutRevision(std::string_view uri, const std::string& path) {
  const auto place = ParseHubUri(uri);
  if (!place.ok()) return path;
  return absl::StrCat(place->dataset ? "datasets/" : "", place->repository, place->path.empty() ? "" : "/",
                      place->path);
}

// "/a/b" is below "/a" and "/", not below "/a/" only by spelling.
bool IsBelow(const std::string& path, const std::string& directory) {
  return path.starts_with(directory) && (directory.ends_with('/') || path[directory.size()] == '/');
}

}  // namespace

std::vector<UriField> UrisOf(const v1::JobSpec& spec) {
  std::vector<UriField> fields;
  const auto add = [&fields](std::string path, const std::string& uri, bool written = false) {
    if (!uri.empty()) fields.push_back({std::move(path), uri, written});
  };
  add("spec.model.uri", spec.model().uri());
  add("spec.data.uri", spec.data().uri());
  for (int i = 0; i < spec.data().sources_size(); ++i) {
    add(absl::StrCat("spec.data.sources[", i, "].uri"), spec.data().sources(i).uri());
  }
  add("spec.validation.uri", spec.validation().uri());
  add("spec.method.distillation.teacher", spec.method().distillation().teacher());
  add("spec.lora.adapter", spec.lora().adapter());
  add("spec.output.uri", spec.output().uri(), /*written=*/true);
  add("spec.resume_from", spec.resume_from());
  return fields;
}

absl::StatusOr<UriPolicy> UriPolicy::Parse(const std::vector<std::string>& patterns, const fs::path& uploads) {
  UriPolicy policy;
  if (patterns.empty()) return policy;
  policy.everything_ = false;
  std::vector<std::string> all = patterns;
  all.push_back(absl::StrCat(uploads.string(), std::string(kBelow)));
  for (const std::string& pattern : all) {
    std::string uri(WithoutParameters(pattern));
    const bool below = uri.ends_with(kBelow);
    if (below) uri.resize(uri.size() - kBelow.size());
    const bool root = below && (uri == "file://" || uri.empty());  // file:///** and /**
    if (root) uri += "/";
    if (uri.find('*') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", pattern, "': an asterisk is possible at the end alone, as /**: what is below"));
    }
    auto place = PlaceOf(uri + std::string(ParametersOf(pattern)));
    if (!place.ok()) return absl::InvalidArgumentError(absl::StrCat("'", pattern, "': ", place.status().message()));
    place->below = below;
    policy.allowed_.push_back(*std::move(place));
  }
  policy.allowed_.back().read_only = true;  // the uploads
  return policy;
}

absl::StatusOr<UriPolicy::Place> UriPolicy::PlaceOf(std::string_view uri) {
  const std::optional<StorageScheme> scheme = SchemeOf(uri);
  if (scheme && *scheme != StorageScheme::kLocal) return PlaceInStore(*scheme, uri);
  const auto path = LocalPathOf(uri);
  if (!path.ok()) return path.status();
  if (HasDots(*path)) return absl::InvalidArgumentError("has a component '.' or '..'");
  std::error_code error;
  const fs::path canonical = fs::weakly_canonical(*path, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("can't be followed: ", error.message()));
  // What is not there yet was taken as it is spelled; a link that leads nowhere may lead somewhere tomorrow.
  fs::path part;
  for (const fs::path& component : canonical) {
    part /= component;
    if (fs::is_symlink(fs::symlink_status(part, error))) return absl::InvalidArgumentError("is a link to nowhere");
  }
  return Place{.path = WithoutSlash(canonical.string())};
}

absl::StatusOr<UriPolicy::Place> UriPolicy::PlaceInStore(StorageScheme scheme, std::string_view uri) {
  auto path = PathOfRemote(uri);
  if (!path.ok()) return path.status();
  if (path->empty()) return absl::InvalidArgumentError("names no place in a bucket");
  if (scheme == StorageScheme::kHub) path = WithoutRevision(uri, *path);
  return Place{.scheme = scheme, .path = *std::move(path), .parameters = std::string(ParametersOf(uri))};
}

bool UriPolicy::Allows(const Place& place, bool written) const {
  return std::any_of(allowed_.begin(), allowed_.end(), [&place, written](const Place& allowed) {
    return allowed.scheme == place.scheme && allowed.parameters == place.parameters &&
           !(written && allowed.read_only) &&
           (allowed.path == place.path || (allowed.below && IsBelow(place.path, allowed.path)));
  });
}

absl::Status UriPolicy::Check(const v1::JobSpec& spec) const {
  if (everything_) return absl::OkStatus();
  std::vector<FieldViolation> violations;
  for (const UriField& field : UrisOf(spec)) {
    const auto place = PlaceOf(field.uri);
    if (place.ok() && Allows(*place, field.written)) continue;
    // Where its links lead is not said: that would show the disk.
    violations.push_back({field.path, absl::StrCat("'", field.uri,
                                                   "' is no place that this server's jobs may use "
                                                   "(temper-server --allow-uri)")});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations);
}

}  // namespace temper
