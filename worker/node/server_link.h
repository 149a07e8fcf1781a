// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "common/clock.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "temper/v1/worker_service.grpc.pb.h"
#include "worker/node/report_buffer.h"

namespace temper {

struct ServerLinkOptions {
  std::chrono::milliseconds heartbeat_interval{5'000};
  // A server that accepts a connection but does not answer Hello for so long is given up, and tried again.
  std::chrono::milliseconds answer_timeout{10'000};
  // Pause before the stream is opened again; it doubles with each attempt that fails.
  std::chrono::milliseconds first_backoff{200};
  std::chrono::milliseconds last_backoff{5'000};
  // Without a server for so long, the link gives up.
  std::chrono::milliseconds absence_limit{3'600'000};
  // See ReportBuffer.
  size_t buffer_bytes = 16u << 20;
  size_t window = 512;
};

// The node's one Attach stream to the server: says Hello and Heartbeat, delivers reports, opens the stream again when
// it breaks, and repeats what was not acknowledged.
class ServerLink {
 public:
  // Called on the link's threads, one at a time per function; they must not call Close().
  struct Events {
    // Once, with the server's first answer.
    std::function<void(const v1::Assignment&)> on_assignment;
    // All nodes of the gang are there. Again with each new stream.
    std::function<void(const v1::Meeting&)> on_meeting;
    std::function<void(const v1::Stop&)> on_stop;
    // The server knows of this step now.
    std::function<void(int64_t)> on_step_heard;
    // Every report was acknowledged. May come more than once.
    std::function<void()> on_drained;
    // The server will have nothing more to do with this node (UNAUTHENTICATED, FAILED_PRECONDITION, …), or was away for
    // longer than the limit (UNAVAILABLE). Nothing comes after it.
    std::function<void(const absl::Status&)> on_lost;
  };

  // Starts at once.
  ServerLink(std::shared_ptr<grpc::Channel> channel, v1::Hello hello, ServerLinkOptions options, Events events);
  // Close().
  ~ServerLink();
  ServerLink(const ServerLink&) = delete;
  ServerLink& operator=(const ServerLink&) = delete;

  // Any thread; never blocks for the network.
  void Report(v1::RankReport report);

  // Every report that was given to the link is acknowledged.
  bool drained() const;

  // Ends the stream, well if all is acknowledged, and joins the threads. No event comes after it.
  void Close();

 private:
  void Run();
  // One stream from Hello to its end.
  absl::Status RunStream();
  // Returns at once when the link is closed.
  void Pause(std::chrono::milliseconds pause);
  void ReadAll(grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>& stream);
  void Handle(const v1::AttachResponse& response);
  // Writes until the stream breaks or the link is closed. Cancels the stream where it is not ended well: only then, for
  // that would hide the status that the server ended it with.
  void WriteAll(grpc::ClientContext& context, grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>& stream);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  const v1::Hello hello_;
  const ServerLinkOptions options_;
  const Events events_;
  const RealClock clock_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  ReportBuffer buffer_;
  bool closing_ = false;
  bool has_assignment_ = false;
  bool attached_ = false;                          // the server has answered Hello on the present stream
  bool broken_ = false;                            // the present stream has ended
  grpc::ClientContext* context_ = nullptr;         // of the present stream
  std::chrono::steady_clock::time_point contact_;  // when the server was last heard of

  std::thread thread_;  // last: it uses everything above
};

// A channel to `server` (HOST:PORT) that notices when the other end is gone, and tries again soon. `connect_limit`: how
// long an attempt may take. Over a slow network, or to a busy server, that is longer than one thinks.
std::shared_ptr<grpc::Channel> ServerChannel(const std::string& server,
                                             std::chrono::milliseconds connect_limit = std::chrono::seconds(10));

}  // namespace temper
