// SPDX-License-Identifier: Apache-2.0
#include "server/auth/stream_limiter.h"

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace temper {
namespace {

absl::Status TooMany(std::string message) {
  return WithReason(absl::ResourceExhaustedError(std::move(message)), "TOO_MANY_STREAMS");
}

}  // namespace

StreamPlace::~StreamPlace() { limiter_.Leave(caller_); }

absl::StatusOr<std::unique_ptr<StreamPlace>> StreamLimiter::Enter(const std::string& caller) {
  std::lock_guard lock(mutex_);
  const auto open = open_.find(caller);
  if (open != open_.end() && open->second >= limit_.per_caller) {
    const std::string option = limit_.option.empty() ? "" : absl::StrCat(" (temper-server ", limit_.option, ")");
    return TooMany(absl::StrCat(caller, " has as many ", limit_.what, " open as one caller may at a time, ",
                                limit_.per_caller, option, ": end one first"));
  }
  if (all_ >= limit_.of_all) {
    return TooMany(absl::StrCat("all callers together have as many ", limit_.what,
                                " open as the server bears at a time, ", limit_.of_all, ": try again later"));
  }
  ++open_[caller];
  ++all_;
  return std::make_unique<StreamPlace>(*this, caller);
}

void StreamLimiter::Leave(const std::string& caller) {
  std::lock_guard lock(mutex_);
  --all_;
  const auto open = open_.find(caller);
  if (--open->second == 0) open_.erase(open);
}

}  // namespace temper
