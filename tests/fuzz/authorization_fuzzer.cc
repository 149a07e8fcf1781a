// SPDX-License-Identifier: Apache-2.0
// The header `authorization` of a call to a server that knows one token. "{token}" in the input stands for it, so that
// what is almost right comes up too.
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "common/clock.h"
#include "server/auth/authenticator.h"
#include "tests/common/scratch_directory.h"
#include "tests/fuzz/fuzz_input.h"

namespace temper {
namespace {

struct Server {
  ScratchDirectory scratch;
  RealClock clock;
  std::unique_ptr<TokenStore> tokens = *TokenStore::Open(scratch.path(), clock);
  std::string token = tokens->Create({"ana", Role::kReader}, std::nullopt)->token;
  Authenticator authenticator{tokens.get()};
};

}  // namespace
}  // namespace temper

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using temper::Require;
  static const temper::Server server;
  const std::string header =
      absl::StrReplaceAll(std::string(temper::FuzzText(data, size)), {{"{token}", server.token}});
  temper::Identity known;
  const auto caller = server.authenticator.Admit("/temper.v1.TrainingService/GetJob", header, &known);
  const bool right = absl::EqualsIgnoreCase(header.substr(0, 7), "bearer ") && header.substr(7) == server.token;
  Require(caller.ok() == right);
  Require(known.name == (right ? "ana" : ""));
  Require(!server.authenticator.Admit("/temper.v1.TrainingService/CreateJob", header).ok());  // takes a submitter
  return 0;
}
