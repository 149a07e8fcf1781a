// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
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
#include "server/auth/stream_limiter.h"
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
    using Reactor = std::remove_pointer_t<std::invoke_result_t<Call, const Identity&>>;
    return Refuse<Reactor>(*context, route, job, known, caller.status());
  }

  // The same for a stream, which takes one of its caller's places of `limiter`: returns `call(place)`, a reactor that
  // keeps the place for as long as it counts.
  template <typename Call>
  auto PassStream(grpc::CallbackServerContext* context, std::string_view route, std::string_view job,
                  StreamLimiter& limiter, const Call& call) const
      -> std::invoke_result_t<Call, std::unique_ptr<StreamPlace>> {
    using Result = std::invoke_result_t<Call, std::unique_ptr<StreamPlace>>;
    return Pass(context, route, job, [&](const Identity& caller) -> Result {
      // Over the data directory's socket comes the server's own user, whom nobody is to keep out.
      if (context->peer().rfind("unix:", 0) == 0) return call(nullptr);
      auto place = limiter.Enter(NameOf(caller, context->peer()));
      if (place.ok()) return call(*std::move(place));
      return Refuse<std::remove_pointer_t<Result>>(*context, route, job, caller, place.status());
    });
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

  template <typename Reactor>
  Reactor* Refuse(const grpc::CallbackServerContext& context, std::string_view route, std::string_view job,
                  const Identity& known, const absl::Status& status) const {
    const std::string_view method = route.substr(route.rfind('/') + 1);
    observer_(method, status);
    const bool names_callers = authenticator_.tokens() != nullptr;
    if (names_callers) Audit(context.peer(), known.name.empty() ? nullptr : &known, method, job, status);
    return new Refusal<Reactor>(status);  // deletes itself when it is done
  }

  // By whom streams are counted: an identity, or the host of a caller that has none.
  static std::string NameOf(const Identity& caller, const std::string& peer);

  // `known`: as Authenticator::Admit has it.
  absl::StatusOr<Identity> Admit(std::string_view route, std::string_view job, std::string_view authorization,
                                 Identity& known) const;

  const Authenticator& authenticator_;
  CallLimiter& limiter_;
  const JobController& controller_;
  const RpcObserver observer_;
};

}  // namespace temper
