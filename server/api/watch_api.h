// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "server/api/rpc_observer.h"
#include "server/api/watch_hub.h"
#include "server/auth/stream_limiter.h"
#include "server/jobs/job_controller.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// WatchJob. A watcher holds no thread: it writes one event, is called back, writes the next, and sleeps in the hub when
// there is none.
class WatchApi {
 public:
  // Both must outlive every stream.
  WatchApi(const JobController& controller, WatchHub& hub, RpcObserver observer)
      : controller_(controller), hub_(hub), observer_(std::move(observer)) {}

  // The stream keeps `place` until it is done.
  grpc::ServerWriteReactor<v1::JobEvent>* Watch(grpc::CallbackServerContext* context,
                                                const v1::WatchJobRequest& request, std::unique_ptr<StreamPlace> place);

 private:
  const JobController& controller_;
  WatchHub& hub_;
  RpcObserver observer_;
};

}  // namespace temper
