// SPDX-License-Identifier: Apache-2.0
#include "server/observe/byte_range.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace temper {
namespace {

constexpr std::string_view kUnit = "bytes=";

// None: it is no number of digits alone.
std::optional<int64_t> Digits(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool all = error == std::errc() && end == text.data() + text.size() && text.front() != '-';
  return all ? std::optional(number) : std::nullopt;
}

}  // namespace

absl::StatusOr<std::optional<ByteRange>> ParseByteRange(std::string_view header, int64_t size) {
  if (!header.starts_with(kUnit)) return std::nullopt;
  header.remove_prefix(kUnit.size());
  const size_t dash = header.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const std::string_view first = header.substr(0, dash);
  const std::string_view last = header.substr(dash + 1);
  const std::optional<int64_t> from = Digits(first);
  const std::optional<int64_t> to = Digits(last);
  const auto nothing = [&] {
    return absl::OutOfRangeError(absl::StrCat("bytes ", std::string(header), " of ", size, " are none"));
  };
  if (first.empty()) {  // the last bytes
    if (!to) return std::nullopt;
    if (*to == 0 || size == 0) return nothing();
    const int64_t length = std::min(*to, size);
    return ByteRange{.offset = size - length, .length = length};
  }
  if (!from || (!to && !last.empty()) || (to && *to < *from)) return std::nullopt;
  if (*from >= size) return nothing();
  return ByteRange{.offset = *from, .length = std::min(to.value_or(size - 1), size - 1) - *from + 1};
}

}  // namespace temper
