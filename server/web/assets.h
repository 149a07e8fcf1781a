// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

namespace temper {

// A file of the web page, as it was bundled from web/ at build time.
struct Asset {
  std::string_view name;  // "index.html", "app-3f2a….js": the digest of its content is in the name of all but the first
  std::string_view type;
  std::string_view text;
  std::string_view gzip;
};

// All of them; index.html is the first.
std::span<const Asset> Assets();

}  // namespace temper
