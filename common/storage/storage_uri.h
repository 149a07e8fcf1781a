// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace temper {

// URIs of storage: /path, file:///path, s3://bucket/path. The last may end in parameters, ?endpoint=…&region=…, which
// belong to whatever is below as well. Local paths have none: a '?' is a letter of theirs.

// "s3://bucket/a?region=x" → "s3://bucket/a"
std::string_view WithoutParameters(std::string_view uri);
// "?region=x", or ""
std::string_view ParametersOf(std::string_view uri);

// "s3://bucket/a?region=x", "b/c" → "s3://bucket/a/b/c?region=x"
std::string UriBelow(std::string_view uri, std::string_view path);

struct UriOfName {
  std::string directory;  // with parameters
  std::string name;       // what is right below it
};
// "s3://bucket/a/b?region=x" → "s3://bucket/a?region=x" and "b". Absent where there is no name: "/", "s3://bucket".
std::optional<UriOfName> SplitUri(std::string_view uri);

}  // namespace temper
