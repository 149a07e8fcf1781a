// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "server/api/guard.h"
#include "server/api/rpc_observer.h"
#include "server/auth/stream_limiter.h"
#include "server/jobs/job_controller.h"
#include "temper/v1/worker_service.grpc.pb.h"

namespace temper {

// How long a node's stream may be open without a word from the node, or while it takes no answer.
struct NodeSilence {
  std::chrono::milliseconds greeting{10'000};   // before its Hello
  std::chrono::milliseconds attached{240'000};  // after it; a node sends a heartbeat every 5 s
};

// WorkerService: a node's one stream. Reports are collected while a commit is under way and kept together by the next
// one, so that a node that reports faster than the disk flushes is slowed down (its stream is not read on) instead of
// filling memory; so is one that does not read its acknowledgements. A stream that says nothing is ended. Commits
// happen on one thread, for the store has one writer, and each keeps what all streams have by then: however many nodes
// there are, the disk is flushed as often as it can be.
class WorkerApi final : public v1::WorkerService::CallbackService {
 public:
  // `controller`, `guard` and `greetings` (streams before their Hello) must outlive every stream.
  WorkerApi(JobController& controller, const Guard& guard, StreamLimiter& greetings, NodeSilence silence,
            RpcObserver observer);
  // When no stream is left.
  ~WorkerApi() override;

  grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* Attach(grpc::CallbackServerContext* context) override;

  // The server stops: ends every stream with UNAVAILABLE, also those that still come. A node then tries again, and
  // repeats to the next server what this one has not acknowledged.
  void EndStreams();

 private:
  class Stream;

  // The stream has reports to be kept.
  void Schedule(Stream* stream);
  // The stream is done. Destroys it.
  void Forget(Stream* stream);
  void Run();
  // Without the lock meanwhile: a stream that ends needs it.
  template <typename Function>
  void ForEachStream(std::unique_lock<std::mutex>& lock, Function function);
  void Commit(const std::vector<Stream*>& streams);

  JobController& controller_;
  const Guard& guard_;
  StreamLimiter& greetings_;
  const NodeSilence silence_;
  const RpcObserver observer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::map<Stream*, std::shared_ptr<Stream>> streams_;  // until they are done
  std::vector<Stream*> ready_;
  bool stopping_ = false;  // streams end
  bool closing_ = false;   // none is left

  std::thread committer_;  // last: it uses everything above
};

}  // namespace temper
