// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>

namespace temper {

// How one end of a connection finds out that the other has gone without a word: it pings when it has heard nothing for
// a while, and ends what was under way as UNAVAILABLE when no answer comes.
struct Keepalive {
  std::chrono::milliseconds client_ping{20'000};
  std::chrono::milliseconds server_ping{30'000};
  std::chrono::milliseconds answer{10'000};
  // gRPC takes a client that pings more often than this for an attack, and cuts it off. Its own default, 5 min, is
  // longer than `client_ping`.
  std::chrono::milliseconds shortest_ping{10'000};
};

void SetClientKeepalive(const Keepalive& keepalive, grpc::ChannelArguments& arguments);
void SetServerKeepalive(const Keepalive& keepalive, grpc::ServerBuilder& builder);

}  // namespace temper
