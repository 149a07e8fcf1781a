// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper {

class ObjectReader;
class ObjectStore;

// The safetensors format: 8 bytes with the header's length, the header (JSON: name → dtype, shape, data_offsets), then
// the tensors' bytes without gaps. https://github.com/huggingface/safetensors#format

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as in the file: "BF16", "F32", …
  std::vector<int64_t> shape;
  int64_t begin = 0;  // offsets in the file
  int64_t end = 0;

  int64_t size() const { return end - begin; }
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;        // in the order of their bytes
  std::map<std::string, std::string> metadata;  // `__metadata__`
  int64_t data_begin = 0;                       // where the tensors' bytes begin
};

// Bytes of an element; 0 for a dtype that is not known.
int64_t SafetensorsElementSize(std::string_view dtype);
// The torch dtype; absent for one that torch (or this file) does not know.
std::optional<at::ScalarType> SafetensorsScalarType(std::string_view dtype);

// Longer headers are refused, as by the reference implementation.
inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;

// The number of bytes of the header, from a file's first 8 bytes, plus those 8. `name` is for messages.
absl::StatusOr<int64_t> SafetensorsHeaderEnd(std::string_view first_bytes, int64_t file_size, std::string_view name);

// Reads a header: `bytes` are the first SafetensorsHeaderEnd() bytes of a file of `file_size` bytes. DATA_LOSS, saying
// which tensor and what is wrong, when the file is truncated or the header lies: overlapping, missing or surplus bytes,
// sizes that do not follow from dtype and shape, unknown dtypes, names given twice.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view bytes, int64_t file_size,
                                                         std::string_view name);

// The same, from a file of a store.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const ObjectReader& file, std::string_view name);

// The bytes of a contiguous tensor.
std::string_view BytesOf(const at::Tensor& tensor);

// A safetensors file, read-only: mapped into memory where it is on this machine, else only its header is here, and
// tensors are read as they are asked for. Any thread.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const ObjectStore& store, std::string_view path);
  virtual ~SafetensorsFile() = default;
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  // Or its URI, where it is not on this machine.
  const std::string& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }

  // Where the file is mapped, a view of it (a copy only when the file's bytes are not aligned), which must not be
  // written to and must not outlive the file. UNIMPLEMENTED for a dtype without a torch equivalent.
  absl::StatusOr<at::Tensor> Tensor(const SafetensorsEntry& entry) const;
  // A part of it; no other bytes are read. [row, row + rows) of one that has rows, or elements of one seen as a vector.
  absl::StatusOr<at::Tensor> Rows(const SafetensorsEntry& entry, int64_t row, int64_t rows) const;
  absl::StatusOr<at::Tensor> Elements(const SafetensorsEntry& entry, int64_t first, int64_t count) const;
  // Lets the operating system drop the pages of a tensor that was read.
  virtual void Release(const SafetensorsEntry& entry) const = 0;

 protected:
  SafetensorsFile(std::string path, SafetensorsHeader header);

 private:
  // Elements from the file's byte `begin` on.
  virtual absl::StatusOr<at::Tensor> Read(int64_t begin, int64_t count, at::ScalarType dtype) const = 0;

  std::string path_;
  SafetensorsHeader header_;
};

// The first bytes of a file that will hold `entries` in this order; their begin and end are filled in. The tensors'
// bytes follow. Padded with spaces so that the data begins at a multiple of 64 bytes.
std::string BuildSafetensorsHeader(std::vector<SafetensorsEntry>& entries,
                                   const std::map<std::string, std::string>& metadata);

}  // namespace temper
