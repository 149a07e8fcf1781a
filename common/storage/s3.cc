// SPDX-License-Identifier: Apache-2.0
#include "common/storage/s3.h"

#include <arrow/filesystem/s3fs.h>
#include <arrow/io/interfaces.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <arrow/status.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "common/storage/bounded_executor.h"
#include "common/storage/retry.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kConnectLimit{5};
// Without a single byte. Completing a large upload takes servers a while.
constexpr milliseconds kSilenceLimit{30'000};

// Goes on until a time, whatever an attempt takes. The SDK makes all attempts at a request in one thread, one after
// another.
class RetryUntilDeadline final : public arrow::fs::S3RetryStrategy {
 public:
  explicit RetryUntilDeadline(milliseconds deadline) : deadline_(deadline) {}

  bool ShouldRetry(const AWSErrorDetail& error, int64_t attempted_retries) override {
    static thread_local Clock::time_point first_failure;
    if (attempted_retries == 0) first_failure = Clock::now();
    return error.should_retry && Clock::now() - first_failure < deadline_;
  }

  int64_t CalculateDelayBeforeNextRetry(const AWSErrorDetail&, int64_t attempted_retries) override {
    return RetryPauses::Pause(attempted_retries, deadline_).count();
  }

 private:
  const milliseconds deadline_;
};

// All uploads of the process share it: 16 parts of 10 MiB, which Arrow cuts, twice as many as are sent at a time.
arrow::io::IOContext UploadContext() {
  static auto* const executor = new BoundedExecutor(arrow::io::default_io_context().executor(), 16);
  return arrow::io::IOContext(arrow::default_memory_pool(), executor);
}

// Once a process.
absl::Status StartSdk() {
  static const arrow::Status started = [] {
    arrow::fs::S3GlobalOptions options = arrow::fs::S3GlobalOptions::Defaults();
    options.log_level = arrow::fs::S3LogLevel::Off;  // what goes wrong is said in our errors
    return arrow::fs::InitializeS3(options);
  }();
  return started.ok() ? absl::OkStatus() : absl::InternalError(started.message());
}

// The SDK wants to be told of the process's end, before what it made for its first client is gone: called once there is
// one.
void StopSdkAtExit() {
  static const int registered = std::atexit([] { (void)arrow::fs::EnsureS3Finalized(); });
  (void)registered;
}

absl::Status Malformed(std::string_view uri, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(uri), "\" ", std::string(why)));
}

absl::Status SetEndpoint(std::string_view uri, const std::string& at, arrow::fs::S3Options& options) {
  Endpoint endpoint;
  if (absl::Status read = ReadEndpoint(uri, at, endpoint); !read.ok()) return read;
  options.scheme = endpoint.scheme;
  options.endpoint_override = endpoint.authority;
  return absl::OkStatus();
}

absl::StatusOr<std::string> FindRegion(std::string_view uri, const std::string& bucket, bool amazon) {
  if (std::string region = FirstOfEnvironment({"AWS_REGION", "AWS_DEFAULT_REGION"}); !region.empty()) return region;
  if (!amazon) return "us-east-1";
  arrow::Result<std::string> region = arrow::fs::ResolveS3BucketRegion(bucket);
  if (region.ok()) return *region;
  return FromS3Error(region.status(), absl::StrCat("cannot find the region of ", std::string(uri)));
}

}  // namespace

absl::StatusOr<RemotePlace> OpenS3(std::string_view uri, milliseconds deadline) {
  const absl::StatusOr<std::string> path = PathOfRemote(uri);
  if (!path.ok()) return path.status();
  const std::string bucket = path->substr(0, path->find('/'));
  if (HasUserInformation(uri)) return UserInformation("s3://", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
  if (bucket.empty()) return Malformed(uri, "names no bucket: write s3://bucket/path");
  const auto parameters = ReadParameters(uri);
  if (!parameters.ok()) return parameters.status();
  std::string endpoint, region;
  for (const UriParameter& parameter : *parameters)
    (parameter.name == "endpoint" ? endpoint : region) = parameter.value;
  if (absl::Status started = StartSdk(); !started.ok()) return started;

  arrow::fs::S3Options options;
  options.ConfigureDefaultCredentials();
  if (endpoint.empty()) endpoint = FirstOfEnvironment({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"});
  if (!endpoint.empty()) {
    if (absl::Status set = SetEndpoint(uri, endpoint, options); !set.ok()) return set;
  }
  options.region = std::move(region);
  if (options.region.empty()) {
    absl::StatusOr<std::string> found = FindRegion(uri, bucket, endpoint.empty());
    if (!found.ok()) return found.status();
    options.region = *std::move(found);
  }
  options.connect_timeout = kConnectLimit.count();
  options.request_timeout = std::chrono::duration<double>(std::min(kSilenceLimit, deadline)).count();
  options.retry_strategy = std::make_shared<RetryUntilDeadline>(deadline);
  // Small objects are one request, and appear at once.
  options.allow_delayed_open = true;
  arrow::Result<std::shared_ptr<arrow::fs::S3FileSystem>> file_system =
      arrow::fs::S3FileSystem::Make(options, UploadContext());
  StopSdkAtExit();
  if (!file_system.ok()) {
    return FromS3Error(file_system.status(), absl::StrCat("cannot open ", std::string(uri)));
  }
  return RemotePlace{*file_system, *path, endpoint.empty() ? "Amazon S3" : endpoint,
                     absl::StrCat("s3://", *path, std::string(ParametersOf(uri)))};
}

absl::Status FromS3Error(const arrow::Status& status, std::string message) {
  // "When …: AWS Error NAME (HTTP status N) during OPERATION operation: …" is all that there is of it.
  std::string_view text = status.message();
  if (const size_t begin = text.find("AWS Error "); begin != text.npos) text.remove_prefix(begin + 10);
  const std::string_view name = text.substr(0, text.find(" during "));
  absl::StrAppend(&message, ": ", std::string(text));
  if (message.ends_with('.')) message.pop_back();

  if (ContainsAny(name, {"NO_SUCH_BUCKET"})) {
    return NoSuchBucket(std::move(message));
  }
  if (ContainsAny(name, {"NO_SUCH_KEY", "RESOURCE_NOT_FOUND"})) return absl::NotFoundError(message);
  if (ContainsAny(name, {"INVALID_ACCESS_KEY_ID", "SIGNATURE", "TOKEN", "UNRECOGNIZED_CLIENT", "REQUEST_EXPIRED",
                         "HTTP status 401"})) {
    absl::StrAppend(&message,
                    ". Its credentials are not right: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                    "AWS_PROFILE, where this process runs");
    return WithCause(absl::PermissionDeniedError(message), FailureCause::kUserInput);
  }
  if (ContainsAny(name, {"ACCESS_DENIED", "HTTP status 403"})) {
    return WrongCredentials(std::move(message),
                            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and the bucket's policy");
  }
  if (ContainsAny(name, {"REQUEST_TIME_TOO_SKEWED"})) {
    absl::StrAppend(&message, ". Set the clock of this machine");
    return WithCause(absl::FailedPreconditionError(message), FailureCause::kUserInput);
  }
  if (ContainsAny(text, {"configured region"}) || ContainsAny(name, {"HTTP status 301"})) {
    absl::StrAppend(&message, ". Add ?region=NAME to the URI, or set AWS_REGION");
    return WithCause(absl::FailedPreconditionError(message), FailureCause::kUserInput);
  }
  if (ContainsAny(name, {"HTTP status 507"}) || ContainsAny(text, {"QuotaExceeded", "StorageFull"})) {
    return StoreIsFull(std::move(message));
  }
  if (ContainsAny(name, {"NETWORK_CONNECTION", "TIMEOUT", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE", "SLOW_DOWN",
                         "THROTTLING", "HTTP status 5"})) {
    return StoreIsDown(std::move(message));
  }
  return WithCause(absl::UnavailableError(message), FailureCause::kStorage);
}

}  // namespace temper
