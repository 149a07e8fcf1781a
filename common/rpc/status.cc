// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/status.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace temper {
namespace {

constexpr std::string_view kTypePrefix = "type.googleapis.com/";
constexpr std::string_view kDomain = "temper";

// gRPC gives up on headers of more than 8 kB together. Details travel in base64 (× 4/3), the message percent-encoded:
// 4,400 × 4/3 + 1,500 leaves 800 bytes for the rest.
constexpr size_t kMaxDetailBytes = 4400;
constexpr size_t kMaxMessageBytes = 1500;

template <typename Message>
std::string TypeUrl() {
  return absl::StrCat(std::string(kTypePrefix), Message::descriptor()->full_name());
}

template <typename Message>
Message PayloadOf(const absl::Status& status) {
  Message message;
  if (auto payload = status.GetPayload(TypeUrl<Message>())) message.ParseFromString(std::string(*payload));
  return message;
}

template <typename Message>
void SetPayload(absl::Status& status, const Message& message) {
  status.SetPayload(TypeUrl<Message>(), absl::Cord(message.SerializeAsString()));
}

// How many bytes a character takes once gRPC has percent-encoded it.
size_t EncodedBytes(char c) { return c >= 0x20 && c < 0x7f && c != '%' ? 1 : 3; }

// `text`, or as much of it as takes at most `limit` bytes on the wire, cut between characters of UTF-8.
std::string CutText(std::string_view text, size_t limit) {
  constexpr std::string_view kEllipsis = "...";
  size_t encoded = 0;
  size_t cut = 0;  // where to cut, should the text be too long
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts_character = (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80;
    if (starts_character && encoded + kEllipsis.size() <= limit) cut = i;
    encoded += EncodedBytes(text[i]);
    if (encoded > limit) return absl::StrCat(std::string(text.substr(0, cut)), std::string(kEllipsis));
  }
  return std::string(text);
}

template <typename Message>
void Append(google::rpc::Status& wire, const Message& message) {
  auto* any = wire.add_details();
  any->set_type_url(TypeUrl<Message>());
  any->set_value(message.SerializeAsString());
}

// As many violations as fit into what `wire` leaves of the budget.
void AppendViolations(google::rpc::Status& wire, google::rpc::BadRequest bad_request) {
  constexpr size_t kFraming = 200;  // of the Any, and the note about what was left out
  constexpr size_t kMaxViolationBytes = 1000;
  const size_t budget = kMaxDetailBytes - kFraming - wire.ByteSizeLong();
  google::rpc::BadRequest kept;
  for (const auto& violation : bad_request.field_violations()) {
    auto* added = kept.add_field_violations();
    added->set_field(CutText(violation.field(), kMaxViolationBytes));
    added->set_description(CutText(violation.description(), kMaxViolationBytes));
    if (kept.ByteSizeLong() <= budget) continue;
    const int left_out = bad_request.field_violations_size() - kept.field_violations_size() + 1;
    added->set_field("");
    added->set_description(absl::StrCat("and ", left_out, " more"));
    break;
  }
  Append(wire, kept);
}

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

}  // namespace

absl::Status InvalidFields(const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad_request;
  for (const FieldViolation& violation : violations) {
    auto* added = bad_request.add_field_violations();
    added->set_field(violation.field);
    added->set_description(violation.description);
  }
  auto join = [](std::string* out, const FieldViolation& violation) {
    absl::StrAppend(out, violation.field, ": ", violation.description);
  };
  absl::Status status = absl::InvalidArgumentError(absl::StrJoin(violations, "; ", join));
  SetPayload(status, bad_request);
  return status;
}

absl::Status WithReason(absl::Status status, std::string_view reason, std::map<std::string, std::string> metadata) {
  if (status.ok()) return status;
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(std::string(kDomain));
  for (auto& [key, value] : metadata) (*info.mutable_metadata())[key] = std::move(value);
  SetPayload(status, info);
  return status;
}

std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status) {
  const auto bad_request = PayloadOf<google::rpc::BadRequest>(status);
  std::vector<FieldViolation> violations;
  for (const auto& violation : bad_request.field_violations()) {
    violations.push_back({violation.field(), violation.description()});
  }
  return violations;
}

std::string ReasonOf(const absl::Status& status) { return PayloadOf<google::rpc::ErrorInfo>(status).reason(); }

std::map<std::string, std::string> ReasonMetadataOf(const absl::Status& status) {
  const auto info = PayloadOf<google::rpc::ErrorInfo>(status);
  return {info.metadata().begin(), info.metadata().end()};
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status wire;
  wire.set_code(static_cast<int>(status.code()));
  wire.set_message(CutText({status.message().data(), status.message().size()}, kMaxMessageBytes));

  auto info = PayloadOf<google::rpc::ErrorInfo>(status);
  if (info.reason().empty()) {
    info.set_reason(CodeName(status.code()));
    info.set_domain(std::string(kDomain));
  }
  for (auto& [key, value] : *info.mutable_metadata()) value = CutText(value, 300);
  if (info.ByteSizeLong() > 1000) info.clear_metadata();
  Append(wire, info);

  auto bad_request = PayloadOf<google::rpc::BadRequest>(status);
  if (bad_request.field_violations_size() > 0) AppendViolations(wire, std::move(bad_request));
  // absl's codes are gRPC's.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), wire.message(), wire.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status wire;
  // What a proxy sends may have no details, or some that are not ours.
  if (status.error_details().empty() || !wire.ParseFromString(status.error_details())) return result;
  for (const auto& detail : wire.details()) result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  return result;
}

}  // namespace temper
