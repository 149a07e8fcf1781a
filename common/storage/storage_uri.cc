// SPDX-License-Identifier: Apache-2.0
#include "common/storage/storage_uri.h"

#include <arrow/util/uri.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace temper {
namespace {

struct NamedScheme {
  std::string_view prefix;
  StorageScheme scheme;
  std::string_view parameters;  // with commas
};
constexpr std::array kRemoteSchemes = {
    NamedScheme{"s3://", StorageScheme::kS3, "endpoint,region"},
    NamedScheme{"gs://", StorageScheme::kGcs, "endpoint"},
    NamedScheme{"abfs://", StorageScheme::kAzure, "endpoint"},
    NamedScheme{"abfss://", StorageScheme::kAzure, "endpoint"},
    NamedScheme{"hf://", StorageScheme::kHub, ""},
};
constexpr std::string_view kDatasets = "datasets/";

const NamedScheme* RemoteScheme(std::string_view uri) {
  const auto found = std::find_if(kRemoteSchemes.begin(), kRemoteSchemes.end(),
                                  [&](const NamedScheme& scheme) { return uri.starts_with(scheme.prefix); });
  return found == kRemoteSchemes.end() ? nullptr : &*found;
}

// Where what can be split off begins: behind the bucket, the container or the repository.
size_t EndOfRoot(std::string_view path) {
  const NamedScheme* scheme = RemoteScheme(path);
  if (scheme == nullptr) {
    const size_t authority = path.find("://");
    return authority == path.npos ? 0 : authority + 3;
  }
  size_t end = scheme->prefix.size();
  int components = 1;
  if (scheme->scheme == StorageScheme::kHub) components = path.substr(end).starts_with(kDatasets) ? 3 : 2;
  for (int i = 0; i < components && end < path.size(); ++i) end = std::min(path.find('/', end + (i > 0)), path.size());
  return end;
}

}  // namespace

std::optional<StorageScheme> SchemeOf(std::string_view uri) {
  if (const NamedScheme* scheme = RemoteScheme(uri)) return scheme->scheme;
  if (uri.starts_with("file:") || uri.find("://") == uri.npos) return StorageScheme::kLocal;
  return std::nullopt;
}

std::string_view WithoutParameters(std::string_view uri) {
  return RemoteScheme(uri) != nullptr ? uri.substr(0, uri.find('?')) : uri;
}

std::string_view ParametersOf(std::string_view uri) { return uri.substr(WithoutParameters(uri).size()); }

absl::StatusOr<std::vector<UriParameter>> ReadParameters(std::string_view uri) {
  const std::string text(ParametersOf(uri));
  std::vector<UriParameter> parameters;
  if (text.empty()) return parameters;
  const std::vector<std::string> known =
      absl::StrSplit(std::string(RemoteScheme(uri)->parameters), ',', absl::SkipEmpty());
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(text.substr(1), '&', absl::SkipEmpty()))) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(word, absl::MaxSplits('=', 1));
    if (std::find(known.begin(), known.end(), pair.first) == known.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", std::string(WithoutParameters(uri)), "\" is followed by the parameter `", pair.first,
                       "`; its scheme has ", known.empty() ? "none" : absl::StrJoin(known, " and "),
                       ", and a key or a token is no part of a URI"));
    }
    parameters.push_back({pair.first, arrow::util::UriUnescape(pair.second)});
  }
  return parameters;
}

absl::StatusOr<std::string> PathOfRemote(std::string_view uri) {
  const NamedScheme* scheme = RemoteScheme(uri);
  std::string_view path = WithoutParameters(uri).substr(scheme == nullptr ? 0 : scheme->prefix.size());
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.empty()) return std::string();
  for (const std::string& component : std::vector<std::string>(absl::StrSplit(std::string(path), '/'))) {
    if (!component.empty() && component != "." && component != "..") continue;
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(WithoutParameters(uri)), "\" has a component that is empty, \".\" or \"..\""));
  }
  return std::string(path);
}

bool HasUserInformation(std::string_view uri) {
  const size_t begin = uri.find("://");
  if (begin == uri.npos) return false;
  const std::string_view rest = uri.substr(begin + 3);
  const std::string_view authority = rest.substr(0, rest.find_first_of("/?"));
  const bool container = SchemeOf(uri) == StorageScheme::kAzure && authority.find(':') == authority.npos;
  return authority.find('@') != authority.npos && !container;
}

std::string UriBelow(std::string_view uri, std::string_view path) {
  std::string below(WithoutParameters(uri));
  if (!below.ends_with('/')) below += '/';
  below += path;
  below += ParametersOf(uri);
  return below;
}

std::optional<UriOfName> SplitUri(std::string_view uri) {
  std::string_view path = WithoutParameters(uri);
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const size_t root = EndOfRoot(path);
  const size_t slash = path.rfind('/');
  if (slash == path.npos || slash + 1 == path.size() || slash < root) return std::nullopt;
  std::string directory(path.substr(0, std::max<size_t>(slash, 1)));
  if (slash == root && path.starts_with("file://")) directory = path.substr(0, slash + 1);  // file:///name
  directory += ParametersOf(uri);
  return UriOfName{std::move(directory), std::string(path.substr(slash + 1))};
}

std::string HubPlace::Uri() const {
  return absl::StrCat("hf://", dataset ? std::string(kDatasets) : "", repository, "@",
                      absl::StrReplaceAll(revision, {{"/", "%2F"}}), path.empty() ? "" : "/", path);
}

bool HubPlace::pinned() const {
  return revision.size() == 40 && revision.find_first_not_of("0123456789abcdef") == revision.npos;
}

absl::StatusOr<HubPlace> ParseHubUri(std::string_view uri) {
  absl::StatusOr<std::string> text = PathOfRemote(uri);
  if (!text.ok()) return text.status();
  if (const auto none = ReadParameters(uri); !none.ok()) return none.status();
  HubPlace place;
  place.dataset = text->starts_with(kDatasets);
  const std::vector<std::string> parts =
      absl::StrSplit(text->substr(place.dataset ? kDatasets.size() : 0), absl::MaxSplits('/', 2));
  if (parts.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(uri),
                     "\" names no repository: write hf://org/name@revision, or hf://datasets/org/name@revision/path"));
  }
  const std::pair<std::string, std::string> name = absl::StrSplit(parts[1], absl::MaxSplits('@', 1));
  place.repository = absl::StrCat(parts[0], "/", name.first);
  if (name.first.size() < parts[1].size()) place.revision = arrow::util::UriUnescape(name.second);
  if (parts.size() > 2) place.path = parts[2];
  const auto is_name = [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/'; };
  const std::string& revision = place.revision;
  const bool named = !name.first.empty() && name.first != "." && name.first != "..";  // before an @
  const bool sound = named && std::all_of(place.repository.begin(), place.repository.end(), is_name) &&
                     std::all_of(revision.begin(), revision.end(), is_name) && !revision.empty() &&
                     revision.find("..") == revision.npos && revision.front() != '/' && revision.back() != '/';
  if (!sound) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(uri), "\" has a repository or a revision that the hub can't have"));
  }
  return place;
}

}  // namespace temper
