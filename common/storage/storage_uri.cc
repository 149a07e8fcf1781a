// SPDX-License-Identifier: Apache-2.0
#include "common/storage/storage_uri.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace temper {

std::string_view WithoutParameters(std::string_view uri) {
  return uri.starts_with("s3://") ? uri.substr(0, uri.find('?')) : uri;
}

std::string_view ParametersOf(std::string_view uri) { return uri.substr(WithoutParameters(uri).size()); }

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
  const size_t scheme = path.find("://");
  const size_t slash = path.rfind('/');
  // Of what comes before, the authority at least has to stay.
  if (slash == path.npos || slash + 1 == path.size() || (scheme != path.npos && slash < scheme + 3)) {
    return std::nullopt;
  }
  std::string directory(path.substr(0, std::max<size_t>(slash, 1)));
  if (scheme != path.npos && slash == scheme + 3) directory = path.substr(0, slash + 1);  // file:///name
  directory += ParametersOf(uri);
  return UriOfName{std::move(directory), std::string(path.substr(slash + 1))};
}

}  // namespace temper
