// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/field_check.h"

#include <cstddef>

#include "common/storage/storage_uri.h"

namespace temper {

void FieldCheck::Uri(std::string_view field, const std::string& uri, std::string_view what) {
  constexpr size_t kMaxBytes = 4096;  // PATH_MAX
  if (uri.empty()) {
    Wrong(field, absl::StrCat("is required: ", std::string(what), ", as ", std::string(kStorageForms)));
  } else if (uri.size() > kMaxBytes) {
    Wrong(field, absl::StrCat("must have at most ", kMaxBytes, " bytes, not ", uri.size()));
  } else if (uri.find('\0') != std::string::npos) {
    Wrong(field, "must not contain a NUL character");
  } else if (HasUserInformation(uri)) {
    // Not quoted: a job, its events and its log are no place for secrets.
    Wrong(field,
          "holds a user name or a password, which a job keeps for everyone to read: take it out, and give it to the "
          "server's environment");
  } else if (const auto scheme = SchemeOf(uri); !scheme) {
    Wrong(field, absl::StrCat("'", uri, "' has the scheme ", uri.substr(0, uri.find("://")),
                              ", which this version does not read: use ", std::string(kStorageForms)));
  } else if (*scheme != StorageScheme::kLocal) {
    Remote(field, uri);
  } else if (uri.starts_with("file:") && !uri.starts_with("file:///")) {
    Wrong(field, absl::StrCat("'", uri, "' names no path on this machine: write file:///path, with three slashes"));
  } else if (!uri.starts_with('/') && !uri.starts_with("file:///")) {
    Wrong(field,
          absl::StrCat("'", uri, "' is a relative path, and the server does not know what it is relative to: use ",
                       std::string(kStorageForms)));
  }
}

void FieldCheck::Remote(std::string_view field, const std::string& uri) {
  const auto parameters = ReadParameters(uri);
  if (!parameters.ok()) return Wrong(field, std::string(parameters.status().message()));
  if (SchemeOf(uri) != StorageScheme::kHub) return;
  const auto place = ParseHubUri(uri);
  if (!place.ok()) return Wrong(field, std::string(place.status().message()));
  if (field == "output.uri")
    Wrong(field, absl::StrCat("'", uri, "' is on a hub, which is only read: choose another place"));
}

}  // namespace temper
