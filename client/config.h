// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/channel.h"

namespace temper {

// What a user has written down about the server. Empty: nothing.
struct ClientConfig {
  std::string server;  // HOST:PORT, or https://HOST:PORT
  std::string token;
  ChannelTls tls;
  bool insecure = false;  // the token may go to other hosts in plain text
};

// ${XDG_CONFIG_HOME:-~/.config}/temper/config.yaml; empty when there is no home either.
std::string ClientConfigPath();

// Reads a file with the keys `server`, `token` or `token_file`, whose contents without white space around them are the
// token, `ca_file`, `cert_file` and `key_file` (relative paths are meant relative to the config file), and `insecure`
// (true or false). A file that does not exist says nothing. INVALID_ARGUMENT, FAILED_PRECONDITION: what is wrong with
// it, and on which line.
absl::StatusOr<ClientConfig> ReadClientConfig(const std::string& path);

// The token in a file: its content without white space around it. Files, because what a command line says is for every
// user of the machine to see. FAILED_PRECONDITION: why it can't be read.
absl::StatusOr<std::string> ReadToken(const std::string& path);

}  // namespace temper
