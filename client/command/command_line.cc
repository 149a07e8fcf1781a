// SPDX-License-Identifier: Apache-2.0
#include "client/command/command_line.h"

#include <google/protobuf/util/json_util.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "client/command/format.h"
#include "client/transfer_place.h"
#include "common/rpc/status.h"

namespace temper::command {

ExitCode Fail(const Context& context, const absl::Status& status) {
  const ExitCode code = ExitCodeOf(status);
  std::string text(status.message());
  if (absl::IsUnavailable(status)) {
    text =
        absl::StrCat("no server answers at ", context.server, " (", status.message(),
                     ").\nStart one with `temper-server`, or name another with --server HOST:PORT or TEMPER_SERVER.");
  } else if (absl::IsDeadlineExceeded(status) && ReasonOf(status).empty()) {  // nobody has said it
    text = absl::StrCat("the server at ", context.server, " did not answer in time (",
                        HumanDuration(context.client.options().deadline),
                        "). It may be overloaded, or the address may belong to something else.");
  } else if (text.empty()) {
    text = absl::StatusCodeToString(status.code());
  }
  std::fflush(stdout);
  std::fprintf(stderr, "temper: %s\n", text.c_str());
  return code;
}

void PrintWaiting(const absl::Status& why) {
  std::fflush(stdout);
  std::fprintf(stderr, "temper: %s. Waiting for that, up to %s …\n", std::string(why.message()).c_str(),
               HumanDuration(PlaceOptions().patience).c_str());
}

void PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  // Fails only for google.protobuf.Any of an unknown type, of which the schema has none.
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) json = "{}";
  std::printf("%s\n", json.c_str());
  std::fflush(stdout);
}

}  // namespace temper::command
