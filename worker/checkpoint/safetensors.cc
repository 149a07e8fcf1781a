// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <c10/util/accumulate.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"

namespace temper {
namespace {

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kDataAlignment = 64;
constexpr int64_t kUsualHeader = 128 << 10;

struct DtypeInfo {
  std::string_view name;
  int64_t size;
  std::optional<at::ScalarType> scalar_type;
};

const DtypeInfo kDtypes[] = {
    {"BOOL", 1, at::kBool},
    {"U8", 1, at::kByte},
    {"I8", 1, at::kChar},
    {"F8_E5M2", 1, at::kFloat8_e5m2},
    {"F8_E4M3", 1, at::kFloat8_e4m3fn},
    {"I16", 2, at::kShort},
    {"U16", 2, at::kUInt16},
    {"F16", 2, at::kHalf},
    {"BF16", 2, at::kBFloat16},
    {"I32", 4, at::kInt},
    {"U32", 4, at::kUInt32},
    {"F32", 4, at::kFloat},
    {"F64", 8, at::kDouble},
    {"I64", 8, at::kLong},
    {"U64", 8, at::kUInt64},
};

const DtypeInfo* FindDtype(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const DtypeInfo& dtype) { return dtype.name == name; });
  return found == std::end(kDtypes) ? nullptr : found;
}

absl::Status Damaged(std::string_view file, const std::string& what) {
  return absl::DataLossError(absl::StrCat(std::string(file), " is not a sound safetensors file: ", what));
}

// JSON lets a name be given twice, and parsers keep either; here that would hide a tensor.
class DuplicateNames {
 public:
  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) {
      seen_.resize(depth + 1);
      seen_.emplace_back();
    } else if (event == Event::key && !seen_[depth].insert(parsed.get<std::string>()).second && first_.empty()) {
      first_ = parsed.get<std::string>();
    }
    return true;
  }
  const std::string& first() const { return first_; }

 private:
  std::vector<std::set<std::string>> seen_;  // by depth: the names of the object that is being read
  std::string first_;
};

bool IsSize(const nlohmann::json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

// Fills in dtype, shape and the offsets, relative to the data's begin. Returns what is wrong, or "".
std::string ReadEntry(const nlohmann::json& json, SafetensorsEntry& entry) {
  if (!json.is_object()) return "is not described by an object";
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!json.contains(key)) return absl::StrCat("has no ", key);
  }
  if (!json["dtype"].is_string()) return "has a dtype that is no string";
  entry.dtype = json["dtype"].get<std::string>();
  const int64_t element_size = SafetensorsElementSize(entry.dtype);
  if (element_size == 0) return absl::StrCat("has the unknown dtype ", entry.dtype);

  const nlohmann::json& shape = json["shape"];
  if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), IsSize)) return "has a malformed shape";
  entry.shape = shape.get<std::vector<int64_t>>();
  int64_t size = element_size;
  for (int64_t extent : entry.shape) {
    if (__builtin_mul_overflow(size, extent, &size)) return "has a shape of more than 2^63 bytes";
  }

  const nlohmann::json& offsets = json["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !IsSize(offsets[0]) || !IsSize(offsets[1])) {
    return "has malformed data_offsets";
  }
  entry.begin = offsets[0].get<int64_t>();
  entry.end = offsets[1].get<int64_t>();
  if (entry.end < entry.begin || entry.size() != size) {
    return absl::StrCat("takes ", size, " bytes by its shape and dtype, but data_offsets are [", entry.begin, ", ",
                        entry.end, "]");
  }
  return "";
}

// The tensors' bytes must follow each other without gaps from 0 to `data_size`. Sorts the entries; returns what is
// wrong, or "".
std::string CheckLayout(std::vector<SafetensorsEntry>& entries, int64_t data_size) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t end = 0;
  const std::string* previous = nullptr;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.end > data_size) {
      return absl::StrCat("tensor ", entry.name, " ends ", entry.end - data_size,
                          " bytes after the end of the file: the file is truncated, get it again");
    }
    if (entry.begin < end) return absl::StrCat("tensors ", *previous, " and ", entry.name, " overlap");
    if (entry.begin > end) {
      return absl::StrCat(entry.begin - end, " bytes before tensor ", entry.name, " belong to no tensor");
    }
    end = entry.end;
    previous = &entry.name;
  }
  if (end != data_size) return absl::StrCat("the last ", data_size - end, " bytes belong to no tensor");
  return "";
}

uint64_t ReadLittleEndian(std::string_view bytes) {
  uint64_t value = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

class MappedFile final : public SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~MappedFile() override { ::munmap(const_cast<char*>(data_), size_); }

  void Release(const SafetensorsEntry& entry) const override {
    const int64_t page = ::sysconf(_SC_PAGESIZE);
    const int64_t begin = entry.begin / page * page;
    // Pages that a neighbour shares are read again when it is.
    (void)::madvise(const_cast<char*>(data_) + begin, static_cast<size_t>(entry.end - begin), MADV_DONTNEED);
  }

 private:
  MappedFile(std::string path, SafetensorsHeader header, const char* data, size_t size)
      : SafetensorsFile(std::move(path), std::move(header)), data_(data), size_(size) {}

  absl::StatusOr<at::Tensor> Read(int64_t begin, int64_t count, at::ScalarType dtype) const override {
    const char* bytes = data_ + begin;
    if (reinterpret_cast<uintptr_t>(bytes) % c10::elementSize(dtype) == 0) {
      return at::from_blob(const_cast<char*>(bytes), {count}, at::TensorOptions(dtype));
    }
    at::Tensor copy = at::empty({count}, dtype);
    std::memcpy(copy.mutable_data_ptr(), bytes, copy.nbytes());
    return copy;
  }

  const char* const data_;
  const size_t size_;
};

// On a store from which ranges are read.
class RemoteFile final : public SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const ObjectStore& store, std::string_view path);

  void Release(const SafetensorsEntry&) const override {}

 private:
  RemoteFile(std::string uri, SafetensorsHeader header, std::unique_ptr<ObjectReader> reader)
      : SafetensorsFile(std::move(uri), std::move(header)), reader_(std::move(reader)) {}

  absl::StatusOr<at::Tensor> Read(int64_t begin, int64_t count, at::ScalarType dtype) const override {
    at::Tensor values = at::empty({count}, dtype);
    const absl::Status read =
        reader_->ReadAt(begin, static_cast<int64_t>(values.nbytes()), static_cast<char*>(values.mutable_data_ptr()));
    if (!read.ok()) return read;
    return values;
  }

  const std::unique_ptr<ObjectReader> reader_;
};

}  // namespace

int64_t SafetensorsElementSize(std::string_view dtype) {
  const DtypeInfo* info = FindDtype(dtype);
  return info == nullptr ? 0 : info->size;
}

std::optional<at::ScalarType> SafetensorsScalarType(std::string_view dtype) {
  const DtypeInfo* info = FindDtype(dtype);
  return info == nullptr ? std::nullopt : info->scalar_type;
}

absl::StatusOr<int64_t> SafetensorsHeaderEnd(std::string_view first_bytes, int64_t file_size, std::string_view name) {
  if (file_size < kLengthBytes || first_bytes.size() < kLengthBytes) {
    return Damaged(name, absl::StrCat("it has only ", file_size, " bytes"));
  }
  const uint64_t length = ReadLittleEndian(first_bytes);
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeader)) {
    return Damaged(name, absl::StrCat("it claims a header of ", length, " bytes; at most ", kMaxSafetensorsHeader,
                                      " are allowed"));
  }
  const int64_t end = kLengthBytes + static_cast<int64_t>(length);
  if (end > file_size) {
    return Damaged(name, absl::StrCat("it ends inside its header (", end, " bytes, the file has ", file_size,
                                      "): the file is truncated, get it again"));
  }
  return end;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view bytes, int64_t file_size,
                                                         std::string_view name) {
  absl::StatusOr<int64_t> header_end = SafetensorsHeaderEnd(bytes.substr(0, kLengthBytes), file_size, name);
  if (!header_end.ok()) return header_end.status();
  if (static_cast<int64_t>(bytes.size()) < *header_end) return Damaged(name, "its header was not read whole");
  const std::string_view text = bytes.substr(kLengthBytes, *header_end - kLengthBytes);
  DuplicateNames duplicates;
  if (!text.starts_with('{')) return Damaged(name, "its header is not a JSON object");
  const nlohmann::json json =
      nlohmann::json::parse(text.begin(), text.end(), std::ref(duplicates), /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged(name, "its header is not a JSON object");
  if (!duplicates.first().empty()) {
    return Damaged(name, absl::StrCat("its header has the name ", duplicates.first(), " twice"));
  }

  SafetensorsHeader header;
  header.data_begin = *header_end;
  for (const auto& [key, value] : json.items()) {
    if (key == "__metadata__") {
      if (!value.is_object()) return Damaged(name, "__metadata__ is not an object");
      for (const auto& [field, text_value] : value.items()) {
        if (!text_value.is_string()) return Damaged(name, absl::StrCat("__metadata__.", field, " is not a string"));
        header.metadata.emplace(field, text_value.get<std::string>());
      }
      continue;
    }
    SafetensorsEntry entry{.name = key};
    if (std::string wrong = ReadEntry(value, entry); !wrong.empty()) {
      return Damaged(name, absl::StrCat("tensor ", key, " ", wrong));
    }
    header.entries.push_back(std::move(entry));
  }
  if (std::string wrong = CheckLayout(header.entries, file_size - header.data_begin); !wrong.empty()) {
    return Damaged(name, wrong);
  }
  for (SafetensorsEntry& entry : header.entries) {
    entry.begin += header.data_begin;
    entry.end += header.data_begin;
  }
  return header;
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const ObjectReader& file, std::string_view name) {
  // Most headers are shorter: one request.
  absl::StatusOr<std::string> bytes = file.ReadAt(0, std::min(kUsualHeader, file.size()));
  if (!bytes.ok()) return bytes.status();
  const absl::StatusOr<int64_t> end = SafetensorsHeaderEnd(*bytes, file.size(), name);
  if (!end.ok()) return end.status();
  if (*end > static_cast<int64_t>(bytes->size())) bytes = file.ReadAt(0, *end);
  if (!bytes.ok()) return bytes.status();
  return ParseSafetensorsHeader(*bytes, file.size(), name);
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> RemoteFile::Open(const ObjectStore& store, std::string_view path) {
  absl::StatusOr<std::unique_ptr<ObjectReader>> reader = store.OpenForRead(path);
  if (!reader.ok()) return reader.status();
  std::string uri = store.UriOf(path);
  absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(**reader, uri);
  if (!header.ok()) return header.status();
  return std::unique_ptr<SafetensorsFile>(new RemoteFile(std::move(uri), *std::move(header), *std::move(reader)));
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> MappedFile::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  struct stat info;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return absl::FailedPreconditionError(absl::StrCat("cannot read ", path, ": not a file"));
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* data = size > 0 ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  const int error = errno;
  ::close(fd);
  if (size == 0) return Damaged(path, "it is empty");
  if (data == MAP_FAILED) return absl::ErrnoToStatus(error, absl::StrCat("cannot map ", path));
  const auto* bytes = static_cast<const char*>(data);
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(std::string_view(bytes, size), info.st_size, path);
  if (!header.ok()) {
    ::munmap(data, size);
    return header.status();
  }
  return std::unique_ptr<SafetensorsFile>(new MappedFile(path, *std::move(header), bytes, size));
}

std::string_view BytesOf(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

SafetensorsFile::SafetensorsFile(std::string path, SafetensorsHeader header)
    : path_(std::move(path)), header_(std::move(header)) {}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  return MappedFile::Open(path);
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const ObjectStore& store,
                                                                       std::string_view path) {
  if (const auto local = store.LocalPath(path)) return MappedFile::Open(*local);
  return RemoteFile::Open(store, path);
}

absl::StatusOr<at::Tensor> SafetensorsFile::Elements(const SafetensorsEntry& entry, int64_t first,
                                                     int64_t count) const {
  const std::optional<at::ScalarType> dtype = SafetensorsScalarType(entry.dtype);
  if (!dtype) return absl::UnimplementedError(absl::StrCat(path_, ": tensor ", entry.name, " has dtype ", entry.dtype));
  return Read(entry.begin + first * SafetensorsElementSize(entry.dtype), count, *dtype);
}

absl::StatusOr<at::Tensor> SafetensorsFile::Tensor(const SafetensorsEntry& entry) const {
  const absl::StatusOr<at::Tensor> all = Elements(entry, 0, entry.size() / SafetensorsElementSize(entry.dtype));
  return all.ok() ? all->view(entry.shape) : all;
}

absl::StatusOr<at::Tensor> SafetensorsFile::Rows(const SafetensorsEntry& entry, int64_t row, int64_t rows) const {
  std::vector<int64_t> shape = entry.shape;
  shape[0] = 1;
  const int64_t row_elements = c10::multiply_integers(shape);
  shape[0] = rows;
  const absl::StatusOr<at::Tensor> values = Elements(entry, row * row_elements, rows * row_elements);
  return values.ok() ? values->view(shape) : values;
}

std::string BuildSafetensorsHeader(std::vector<SafetensorsEntry>& entries,
                                   const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  int64_t offset = 0;
  for (SafetensorsEntry& entry : entries) {
    int64_t size = SafetensorsElementSize(entry.dtype);
    for (int64_t extent : entry.shape) size *= extent;
    entry.begin = offset;
    entry.end = offset += size;
    json[entry.name] = {{"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text = json.dump();
  const int64_t unpadded = kLengthBytes + static_cast<int64_t>(text.size());
  text.append(static_cast<size_t>((kDataAlignment - unpadded % kDataAlignment) % kDataAlignment), ' ');
  std::string header;
  for (size_t i = 0, length = text.size(); i < kLengthBytes; ++i, length >>= 8) {
    header += static_cast<char>(length & 0xff);
  }
  header += text;
  for (SafetensorsEntry& entry : entries) {
    entry.begin += static_cast<int64_t>(header.size());
    entry.end += static_cast<int64_t>(header.size());
  }
  return header;
}

}  // namespace temper
