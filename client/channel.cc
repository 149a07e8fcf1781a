// SPDX-License-Identifier: Apache-2.0
#include "client/channel.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/keepalive.h"

namespace temper {
namespace {

constexpr std::string_view kHttps = "https://";

constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [{"service": "temper.v1.TrainingService"}],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.2s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})";

bool IsThisHost(std::string_view address) {
  if (address.starts_with("unix:")) return true;
  std::string host(address.substr(0, address.rfind(':')));
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (absl::EqualsIgnoreCase(host, "localhost")) return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  return ::inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool IsOverTls(const std::string& address, const ChannelTls& tls) {
  return address.starts_with(kHttps) || !tls.ca_file.empty() || !tls.certificate_file.empty() || !tls.key_file.empty();
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  SetClientKeepalive({}, arguments);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  if (IsThisHost(address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

// Into `text`, which stays empty without a path.
absl::Status ReadPem(const std::string& path, std::string& text) {
  if (path.empty()) return absl::OkStatus();
  std::ifstream file(path, std::ios::binary);
  text.assign(std::istreambuf_iterator<char>(file), {});
  if (file.is_open() && !file.bad() && !text.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("cannot read ", path, ", or it is empty"));
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  return MakeChannel(address, grpc::InsecureChannelCredentials());
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address, const ChannelTls& tls) {
  if (!IsOverTls(address, tls)) return MakeChannel(address);
  if (tls.certificate_file.empty() != tls.key_file.empty()) {
    return absl::InvalidArgumentError("a client's certificate needs its key, and the key its certificate");
  }
  grpc::SslCredentialsOptions options;
  for (const auto& [path, text] :
       {std::pair(&tls.ca_file, &options.pem_root_certs), std::pair(&tls.certificate_file, &options.pem_cert_chain),
        std::pair(&tls.key_file, &options.pem_private_key)}) {
    if (absl::Status status = ReadPem(*path, *text); !status.ok()) return status;
  }
  return MakeChannel(address.starts_with(kHttps) ? address.substr(kHttps.size()) : address,
                     grpc::SslCredentials(options));
}

absl::Status CheckTokenIsPrivate(const std::string& address, const ChannelTls& tls) {
  if (IsOverTls(address, tls) || IsThisHost(address)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the token would be sent to ", address,
                                                    " in plain text: use https://HOST:PORT or --ca-file, or accept "
                                                    "that with --insecure"));
}

}  // namespace temper
