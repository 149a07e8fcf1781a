// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper {

inline constexpr char kDefaultServer[] = "127.0.0.1:8470";

// PEM files. Empty: none.
struct ChannelTls {
  std::string ca_file;           // who may have signed the server's certificate; none: whom this machine trusts
  std::string certificate_file;  // what this client shows, where the server asks for it
  std::string key_file;          // of that certificate
};

// A channel to a temper-server at HOST:PORT: connects lazily, pings an idle connection so that a dead peer is noticed
// within half a minute, and repeats a unary call whose server is UNAVAILABLE up to three times within two seconds
// (every call of TrainingService is safe to repeat; CreateJob is by its request_id). Names of this host bypass HTTP
// proxies. Plain text: meant for loopback and trusted networks.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

// The same over TLS where `address` is https://HOST:PORT or `tls` has anything. FAILED_PRECONDITION: a file can't be
// read. INVALID_ARGUMENT: a certificate without its key, or the reverse.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address, const ChannelTls& tls);

// FAILED_PRECONDITION where a token, sent over MakeChannel(address, tls), would leave this host in plain text.
absl::Status CheckTokenIsPrivate(const std::string& address, const ChannelTls& tls);

}  // namespace temper
