// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

namespace temper {

inline constexpr char kDefaultServer[] = "127.0.0.1:8470";

// A channel to a temper-server at HOST:PORT: connects lazily, pings an idle connection so that a dead peer is noticed
// within half a minute, and repeats a unary call whose server is UNAVAILABLE up to three times within two seconds
// (every call of TrainingService is safe to repeat; CreateJob is by its request_id). Names of this host bypass HTTP
// proxies. Plain text: meant for loopback and trusted networks.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

}  // namespace temper
