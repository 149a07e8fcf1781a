// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include "common/rpc/status.h"
#include "server/api/audit.h"
#include "server/api/rpc_observer.h"
#include "server/auth/authenticator.h"
#include "server/auth/call_limiter.h"
#include "server/jobs/job_controller.h"

namespace temper {

// The call's header `authorization`. Empty when there is none, or when there are several: no one of them is what the
// caller meant.
std::string_view AuthorizationOf(const grpc::CallbackServerContext& context);

// What stands before every method of our services: the one place where a call is let through or refused. Any thread.
class Guard {
 public:
  // All must outlive it.
  Guard(const Authenticator& authenticator, CallLimiter& limiter, const JobController& controller, RpcObserver observer)
      : authenticator_(authenticator), limiter_(limiter), controller_(controller), observer_(std::move(observer)) {}

  // Returns `call(identity)`, a reactor; or where the caller may not call `route`
  // ("/temper.v1.TrainingService/GetJob"), one that says so. `job` is the name of the job that the call is about, or of
  // something below it; empty: of none.
  template <typename Call>
  auto Pass(grpc::CallbackServerContext* context, std::string_view route, std::string_view job, const Call& call) const
      -> std::invoke_result_t<Call, const Identity&> {
    Identity known;
    const absl::StatusOr<Identity> caller = Admit(route, job, AuthorizationOf(*context), known);
    if (caller.ok()) return call(*caller);
    const std::string_view method = route.substr(route.rfind('/') + 1);
    observer_(method, caller.status());
    Audit(context->peer(), known.name.empty() ? nullptr : &known, method, job, caller.status());
    using Reactor = std::remove_pointer_t<std::invoke_result_t<Call, const Identity&>>;
    return new Refusal<Reactor>(caller.status());  // deletes itself when it is done
  }

  // The same for HTTP ("GET /metrics"), asked for by `peer` with this header `authorization`: who asks, if that may be
  // answered.
  absl::StatusOr<Identity> PassPage(std::string_view route, std::string_view job, std::string_view authorization,
                                    std::string_view peer) const;

 private:
  template <typename Reactor>
  class Refusal final : public Reactor {
   public:
    explicit Refusal(const absl::Status& status) { this->Finish(ToGrpcStatus(status)); }
    void OnDone() override { delete this; }
  };

  // `known`: as Authenticator::Admit has it.
  absl::StatusOr<Identity> Admit(std::string_view route, std::string_view job, std::string_view authorization,
                                 Identity& known) const;

  const Authenticator& authenticator_;
  CallLimiter& limiter_;
  const JobController& controller_;
  const RpcObserver observer_;
};

}  // namespace temper
