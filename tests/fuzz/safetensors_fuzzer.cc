// SPDX-License-Identifier: Apache-2.0
// A safetensors file.
#include "tests/fuzz/fuzz_input.h"
#include "worker/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file = temper::FuzzText(data, size);
  const auto file_size = static_cast<int64_t>(size);
  const auto end = temper::SafetensorsHeaderEnd(file.substr(0, 8), file_size, "fuzz");
  if (!end.ok()) return 0;
  temper::Require(*end >= 8 && *end <= file_size);
  const auto header = temper::ParseSafetensorsHeader(file.substr(0, *end), file_size, "fuzz");
  if (!header.ok()) return 0;
  // Every byte belongs to one tensor, and is as large as its shape says.
  int64_t next = header->data_begin;
  for (const temper::SafetensorsEntry& entry : header->entries) {
    int64_t bytes = temper::SafetensorsElementSize(entry.dtype);
    for (const int64_t length : entry.shape)
      temper::Require(length >= 0 && !__builtin_mul_overflow(bytes, length, &bytes));
    temper::Require(entry.begin == next && entry.size() == bytes);
    next = entry.end;
  }
  temper::Require(next == file_size);
  return 0;
}
