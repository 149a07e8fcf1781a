// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"

namespace temper {

struct ByteRange {
  int64_t offset = 0;
  int64_t length = 0;
};

// The part of a file of `size` bytes that a header `Range` asks for (RFC 9110, 14). None: all of it, as a server may
// answer to several parts, to other units, and to what it can't read. OUT_OF_RANGE: there is nothing there (416).
absl::StatusOr<std::optional<ByteRange>> ParseByteRange(std::string_view header, int64_t size);

}  // namespace temper
