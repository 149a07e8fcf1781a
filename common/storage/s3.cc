// SPDX-License-Identifier: Apache-2.0
#include "common/storage/s3.h"

#include <arrow/filesystem/s3fs.h>
#include <arrow/result.h>
#include <arrow/status.h>
#include <arrow/util/uri.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/failure.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::string_view kScheme = "s3://";
constexpr milliseconds kFirstPause{100}, kLongestPause{5000};
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

  // Doubled each time, and then anything between a half and the whole of it, so that clients don't come back together.
  int64_t CalculateDelayBeforeNextRetry(const AWSErrorDetail&, int64_t attempted_retries) override {
    static thread_local std::minstd_rand random{std::random_device()()};
    const milliseconds pause = std::min(kFirstPause * (int64_t{1} << std::min<int64_t>(attempted_retries, 10)),
                                        std::min(kLongestPause, deadline_));
    return std::uniform_int_distribution<int64_t>(pause.count() / 2, pause.count())(random);
  }

 private:
  const milliseconds deadline_;
};

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

std::string FirstOf(std::initializer_list<const char*> variables) {
  for (const char* variable : variables) {
    if (const char* value = std::getenv(variable); value != nullptr && *value != '\0') return value;
  }
  return "";
}

absl::Status Malformed(std::string_view uri, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(uri), "\" ", std::string(why)));
}

struct Parameters {
  std::string endpoint, region;
};

absl::StatusOr<Parameters> ReadParameters(std::string_view uri) {
  Parameters parameters;
  std::string_view text = ParametersOf(uri);
  if (!text.empty()) text.remove_prefix(1);  // '?'
  const std::vector<std::string> words = absl::StrSplit(std::string(text), '&', absl::SkipEmpty());
  for (const std::string& word : words) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(word, absl::MaxSplits('=', 1));
    std::string value = arrow::util::UriUnescape(pair.second);
    if (pair.first == "endpoint") {
      parameters.endpoint = std::move(value);
    } else if (pair.first == "region") {
      parameters.region = std::move(value);
    } else {
      return Malformed(uri, absl::StrCat("has the parameter `", pair.first, "`; there are `endpoint` and `region`"));
    }
  }
  return parameters;
}

absl::Status SetEndpoint(std::string_view uri, std::string endpoint, arrow::fs::S3Options& options) {
  while (endpoint.ends_with('/')) endpoint.pop_back();
  options.scheme = endpoint.starts_with("http://") ? "http" : "https";
  const size_t scheme = endpoint.find("://");
  if (scheme != endpoint.npos && !endpoint.starts_with("http://") && !endpoint.starts_with("https://")) {
    return Malformed(uri, absl::StrCat("is to be found at ", endpoint,
                                       ", which is no URL of HTTP: correct `endpoint`, "
                                       "or AWS_ENDPOINT_URL"));
  }
  options.endpoint_override = scheme == endpoint.npos ? endpoint : endpoint.substr(scheme + 3);
  return absl::OkStatus();
}

absl::StatusOr<std::string> FindRegion(std::string_view uri, const std::string& bucket, bool amazon) {
  if (std::string region = FirstOf({"AWS_REGION", "AWS_DEFAULT_REGION"}); !region.empty()) return region;
  if (!amazon) return "us-east-1";
  arrow::Result<std::string> region = arrow::fs::ResolveS3BucketRegion(bucket);
  if (region.ok()) return *region;
  return FromS3Error(region.status(), absl::StrCat("cannot find the region of ", std::string(uri)));
}

bool Contains(std::string_view text, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char* word) { return text.find(word) != text.npos; });
}

}  // namespace

absl::StatusOr<S3Place> OpenS3(std::string_view uri, milliseconds deadline) {
  std::string_view path = WithoutParameters(uri).substr(kScheme.size());
  while (path.ends_with('/')) path.remove_suffix(1);
  const std::string bucket(path.substr(0, path.find('/')));
  if (bucket.find('@') != bucket.npos) {
    return absl::InvalidArgumentError(
        "an s3:// URI holds a user name or a key: take them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
  }
  if (bucket.empty()) return Malformed(uri, "names no bucket: write s3://bucket/path");
  if (Contains(absl::StrCat("/", std::string(path), "/"), {"//", "/./", "/../"})) {
    return Malformed(uri, "has a component that is empty, \".\" or \"..\"");
  }
  const absl::StatusOr<Parameters> parameters = ReadParameters(uri);
  if (!parameters.ok()) return parameters.status();
  if (absl::Status started = StartSdk(); !started.ok()) return started;

  arrow::fs::S3Options options;
  options.ConfigureDefaultCredentials();
  const std::string endpoint =
      parameters->endpoint.empty() ? FirstOf({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}) : parameters->endpoint;
  if (!endpoint.empty()) {
    if (absl::Status set = SetEndpoint(uri, endpoint, options); !set.ok()) return set;
  }
  options.region = parameters->region;
  if (options.region.empty()) {
    absl::StatusOr<std::string> region = FindRegion(uri, bucket, endpoint.empty());
    if (!region.ok()) return region.status();
    options.region = *std::move(region);
  }
  options.connect_timeout = kConnectLimit.count();
  options.request_timeout = std::chrono::duration<double>(std::min(kSilenceLimit, deadline)).count();
  options.retry_strategy = std::make_shared<RetryUntilDeadline>(deadline);
  // Small objects are one request, and appear at once.
  options.allow_delayed_open = true;
  arrow::Result<std::shared_ptr<arrow::fs::S3FileSystem>> file_system = arrow::fs::S3FileSystem::Make(options);
  StopSdkAtExit();
  if (!file_system.ok()) {
    return FromS3Error(file_system.status(), absl::StrCat("cannot open ", std::string(uri)));
  }
  return S3Place{*file_system, std::string(path), endpoint.empty() ? "Amazon S3" : endpoint};
}

absl::Status FromS3Error(const arrow::Status& status, std::string message) {
  // "When …: AWS Error NAME (HTTP status N) during OPERATION operation: …" is all that there is of it.
  std::string_view text = status.message();
  if (const size_t begin = text.find("AWS Error "); begin != text.npos) text.remove_prefix(begin + 10);
  const std::string_view name = text.substr(0, text.find(" during "));
  absl::StrAppend(&message, ": ", std::string(text));
  if (message.ends_with('.')) message.pop_back();

  if (Contains(name, {"NO_SUCH_BUCKET"})) {
    absl::StrAppend(&message, ". Create the bucket, or correct the URI or the endpoint");
    return WithCause(absl::FailedPreconditionError(message), FailureCause::kUserInput);
  }
  if (Contains(name, {"NO_SUCH_KEY", "RESOURCE_NOT_FOUND"})) return absl::NotFoundError(message);
  if (Contains(name, {"INVALID_ACCESS_KEY_ID", "SIGNATURE", "TOKEN", "UNRECOGNIZED_CLIENT", "REQUEST_EXPIRED",
                      "HTTP status 401"})) {
    absl::StrAppend(&message,
                    ". Its credentials are not right: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                    "AWS_PROFILE, where this process runs");
    return WithCause(absl::PermissionDeniedError(message), FailureCause::kUserInput);
  }
  if (Contains(name, {"ACCESS_DENIED", "HTTP status 403"})) {
    absl::StrAppend(&message,
                    ". The credentials that this process finds are missing, wrong, or not allowed to do this: "
                    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and the bucket's policy");
    return WithCause(absl::PermissionDeniedError(message), FailureCause::kUserInput);
  }
  if (Contains(name, {"REQUEST_TIME_TOO_SKEWED"})) {
    absl::StrAppend(&message, ". Set the clock of this machine");
    return WithCause(absl::FailedPreconditionError(message), FailureCause::kUserInput);
  }
  if (Contains(text, {"configured region"}) || Contains(name, {"HTTP status 301"})) {
    absl::StrAppend(&message, ". Add ?region=NAME to the URI, or set AWS_REGION");
    return WithCause(absl::FailedPreconditionError(message), FailureCause::kUserInput);
  }
  if (Contains(name, {"HTTP status 507"}) || Contains(text, {"QuotaExceeded", "StorageFull"})) {
    absl::StrAppend(&message, ". Free some space or choose another place");
    return WithCause(absl::ResourceExhaustedError(message), FailureCause::kStorage);
  }
  if (Contains(name, {"NETWORK_CONNECTION", "TIMEOUT", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE", "SLOW_DOWN",
                      "THROTTLING", "HTTP status 5"})) {
    absl::StrAppend(&message,
                    ". It was tried again for a while: see whether the store is up, and can be reached from here");
  }
  return WithCause(absl::UnavailableError(message), FailureCause::kStorage);
}

}  // namespace temper
