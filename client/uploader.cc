// SPDX-License-Identifier: Apache-2.0
#include "client/uploader.h"

#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/partial_file.h"
#include "common/rpc/status.h"

namespace temper {
namespace {

constexpr size_t kPieceSize = 1 << 20;

struct Field {
  std::string name;
  std::string uri;
};

// Those that name samples, in the order of the schema.
std::vector<Field> DataFields(const v1::JobSpec& spec) {
  std::vector<Field> fields;
  if (!spec.data().uri().empty()) fields.push_back({"data.uri", spec.data().uri()});
  for (int i = 0; i < spec.data().sources_size(); ++i) {
    fields.push_back({absl::StrCat("data.sources[", i, "].uri"), spec.data().sources(i).uri()});
  }
  if (!spec.validation().uri().empty()) fields.push_back({"validation.uri", spec.validation().uri()});
  return fields;
}

// The other way: `uris` as DataFields() has them.
void SetDataFields(const std::vector<std::string>& uris, v1::JobSpec& spec) {
  auto uri = uris.begin();
  if (!spec.data().uri().empty()) spec.mutable_data()->set_uri(*uri++);
  for (v1::DataSource::Source& source : *spec.mutable_data()->mutable_sources()) source.set_uri(*uri++);
  if (!spec.validation().uri().empty()) spec.mutable_validation()->set_uri(*uri++);
}

// Already where the server can read it.
bool IsRemote(std::string_view uri) { return uri.find("://") != uri.npos && !uri.starts_with("file://"); }

// Of file:///path, with its escapes (RFC 3986, 2.1), or a plain path.
std::string PathOf(std::string_view uri) {
  constexpr std::string_view kScheme = "file://";
  if (!uri.starts_with(kScheme)) return std::string(uri);
  uri.remove_prefix(kScheme.size());
  std::string path;
  for (size_t i = 0; i < uri.size(); ++i) {
    uint32_t byte = 0;
    const std::string digits(uri.substr(i + 1 < uri.size() ? i + 1 : i, 2));
    if (uri[i] == '%' && digits.size() == 2 && absl::SimpleHexAtoi(digits, &byte)) {
      path.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      path.push_back(uri[i]);
    }
  }
  return path;
}

absl::StatusOr<v1::UploadHeader> Describe(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::directory) {
    return absl::InvalidArgumentError("it is a directory; single files can be: name them as data.sources");
  }
  if (status.type() != std::filesystem::file_type::regular) {
    return absl::InvalidArgumentError("there is no such file on this machine");
  }
  v1::UploadHeader header;
  header.set_file_name(std::filesystem::path(path).filename().string());
  header.set_size_bytes(static_cast<int64_t>(std::filesystem::file_size(path, error)));
  auto digest = FileSha256(path);
  if (!digest.ok()) return absl::InvalidArgumentError(digest.status().message());
  header.set_sha256(*std::move(digest));
  return header;
}

absl::StatusOr<v1::Upload> SendNow(const TrainingClient& client, const std::string& path,
                                   const v1::UploadHeader& header,
                                   absl::FunctionRef<void(const UploadProgress&)> progress) {
  std::ifstream file(path, std::ios::binary);
  UploadProgress state{.path = path, .total_bytes = header.size_bytes()};
  return client.UploadFile(header, [&]() -> absl::StatusOr<std::string> {
    progress(state);
    std::string piece(kPieceSize, '\0');
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    if (file.bad()) return absl::InvalidArgumentError("it can't be read");
    piece.resize(static_cast<size_t>(file.gcount()));
    state.sent_bytes += file.gcount();
    return piece;
  });
}

// The file as the server has it, and whether it was sent for that.
struct Sent {
  v1::Upload upload;
  bool sent = false;
};

absl::StatusOr<Sent> Send(const TrainingClient& client, const std::string& path, const v1::UploadHeader& header,
                          absl::FunctionRef<void(const UploadProgress&)> progress, WaitingForPlace waiting) {
  Sent result;
  const auto attempt = [&]() -> absl::Status {
    auto upload = client.FindUpload(header);
    result.sent = absl::IsNotFound(upload.status());
    if (result.sent) upload = SendNow(client, path, header, progress);
    if (upload.ok()) result.upload = *std::move(upload);
    return upload.status();
  };
  if (auto status = AwaitPlace({.stop = client.options().stop}, attempt, waiting); !status.ok()) return status;
  return result;
}

// What the server said, without the fields of a call that the user did not write.
absl::Status Explain(const absl::Status& status, const std::string& where, const std::string& path) {
  std::string why(status.message());
  if (absl::IsUnimplemented(status)) why = "the server is of a version that takes no uploads";
  if (const auto violations = FieldViolationsOf(status); !violations.empty()) {
    why = absl::StrJoin(violations, "; ", [](std::string* out, const FieldViolation& violation) {
      absl::StrAppend(out, violation.description);
    });
  }
  return absl::Status(status.code(), absl::StrCat(where, ": ", path, " can't be uploaded: ", why));
}

// Nobody answered: that is not about the file.
bool IsOfTheConnection(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status) ||
         absl::IsUnauthenticated(status);
}

}  // namespace

absl::StatusOr<UploadResult> UploadData(const TrainingClient& client, v1::JobSpec& spec,
                                        absl::FunctionRef<std::string(std::string_view field)> where,
                                        absl::FunctionRef<void(const UploadProgress&)> progress,
                                        WaitingForPlace waiting) {
  UploadResult result;
  std::vector<std::string> uris;
  for (const Field& field : DataFields(spec)) {
    if (IsRemote(field.uri)) {
      uris.push_back(field.uri);
      continue;
    }
    const std::string path = PathOf(field.uri);
    const auto header = Describe(path);
    if (!header.ok()) return Explain(header.status(), where(field.name), path);
    const auto sent = Send(client, path, *header, progress, waiting);
    if (IsOfTheConnection(sent.status())) return sent.status();
    if (!sent.ok()) return Explain(sent.status(), where(field.name), path);
    ++result.files;
    result.bytes += header->size_bytes();
    if (sent->sent) result.sent_bytes += header->size_bytes();
    uris.push_back(sent->upload.uri());
  }
  SetDataFields(uris, spec);
  return result;
}

}  // namespace temper
