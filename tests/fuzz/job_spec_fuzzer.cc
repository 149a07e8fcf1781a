// SPDX-License-Identifier: Apache-2.0
// A job's spec, as any client may send it, and the places that it names. In text format: the bytes of the wire are
// protobuf's affair, what they mean is ours.
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "common/storage/object_store.h"
#include "server/jobs/job_spec.h"
#include "server/jobs/uri_policy.h"
#include "tests/fuzz/fuzz_input.h"

namespace temper {
namespace {

// Inputs that are no text format are the rule here.
class SilentCollector final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, google::protobuf::io::ColumnNumber, const std::string&) override {}
};

// Found out in another way than UriPolicy does.
bool IsBelow(const std::string& uri) {
  constexpr std::string_view kTeam = "s3://bucket/team";
  if (uri.starts_with("s3://")) {
    const bool ends = uri.size() == kTeam.size() || uri[kTeam.size()] == '/';
    return uri.starts_with(kTeam) && ends && uri.find("/../") == std::string::npos;
  }
  const auto store = ObjectStore::Open(uri);
  const std::string path = store.ok() ? (*store)->LocalPath("").value_or("") : "";
  return (std::filesystem::path(path).lexically_normal() / "").string().starts_with("/fuzz/");
}

}  // namespace
}  // namespace temper

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using temper::Require;
  static const temper::UriPolicy policy =
      *temper::UriPolicy::Parse({"file:///fuzz/**", "s3://bucket/team/**"}, "/fuzz");
  [[maybe_unused]] static const auto silent = google::protobuf::SetLogHandler(nullptr);
  temper::SilentCollector errors;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  temper::v1::JobSpec text, spec;
  if (!parser.ParseFromString(std::string(temper::FuzzText(data, size)), &text)) return 0;
  if (!spec.ParseFromString(text.SerializeAsString())) return 0;  // text format lets pass what is no UTF-8
  if (policy.Check(spec).ok()) {
    for (const temper::UriField& field : temper::UrisOf(spec)) Require(temper::IsBelow(field.uri));
  }
  const auto complete = temper::CompleteJobSpec(spec);
  if (!complete.ok()) return 0;
  const auto again = temper::CompleteJobSpec(*complete);
  Require(again.ok() && google::protobuf::util::MessageDifferencer::Equals(*again, *complete));
  return 0;
}
