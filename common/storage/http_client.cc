// SPDX-License-Identifier: Apache-2.0
#include "common/storage/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace temper {
namespace {

constexpr std::chrono::milliseconds kConnectLimit{10'000};
constexpr size_t kMostOfOthers = 64 << 10;  // that is kept of what is no 2xx

struct Answer {
  CURL* curl;
  int64_t max_body;
  HttpResponse response;
  bool too_long = false;
};

size_t TakeHeader(char* bytes, size_t size, size_t count, void* to) {
  auto& response = static_cast<Answer*>(to)->response;
  const std::string_view line(bytes, size * count);
  const size_t colon = line.find(':');
  if (line.starts_with("HTTP/")) response.headers.clear();  // of an interim answer
  if (colon != line.npos) {
    const std::string name = absl::AsciiStrToLower(std::string(line.substr(0, colon)));
    response.headers[name] = std::string(absl::StripAsciiWhitespace(std::string(line.substr(colon + 1))));
  }
  return size * count;
}

size_t TakeBody(char* bytes, size_t size, size_t count, void* to) {
  auto& answer = *static_cast<Answer*>(to);
  std::string& body = answer.response.body;
  long status = 0;
  curl_easy_getinfo(answer.curl, CURLINFO_RESPONSE_CODE, &status);
  if (status / 100 != 2) {
    body.append(bytes, std::min(size * count, kMostOfOthers - body.size()));
    return size * count;
  }
  answer.too_long = static_cast<int64_t>(body.size() + size * count) > answer.max_body;
  if (answer.too_long) return 0;
  body.append(bytes, size * count);
  return size * count;
}

void SetOptions(CURL* curl, const FetchRequest& request, Answer& answer) {
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "temper");
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(std::clamp(request.silence, std::chrono::milliseconds(1), kConnectLimit).count()));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  const long seconds = static_cast<long>(std::chrono::ceil<std::chrono::seconds>(request.silence).count());
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, std::max(seconds, 1L));  // 0: without a limit
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, TakeHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &answer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, TakeBody);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
  if (request.head) curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  if (!request.bearer_token.empty()) {
    curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, request.bearer_token.c_str());
  }
  if (request.range) {
    const std::string range =
        absl::StrCat(request.range->offset, "-", request.range->offset + request.range->length - 1);
    curl_easy_setopt(curl, CURLOPT_RANGE, range.c_str());  // copied
  }
}

}  // namespace

std::string HttpResponse::Header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

HttpClient::~HttpClient() {
  for (void* curl : idle_) curl_easy_cleanup(curl);
}

absl::StatusOr<HttpResponse> HttpClient::Send(const FetchRequest& request) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (started != CURLE_OK) return absl::InternalError(curl_easy_strerror(started));
  CURL* curl = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      curl = idle_.back();
      idle_.pop_back();
    }
  }
  if (curl == nullptr) curl = curl_easy_init();
  if (curl == nullptr) return absl::ResourceExhaustedError("no memory for a request");
  char reason[CURL_ERROR_SIZE] = "";
  Answer answer{.curl = curl, .max_body = request.max_body};
  curl_easy_reset(curl);
  SetOptions(curl, request, answer);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
  const CURLcode code = curl_easy_perform(curl);
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  answer.response.status = static_cast<int>(status);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
  {
    std::lock_guard lock(mutex_);
    idle_.push_back(curl);
  }
  if (answer.too_long) {
    return absl::DataLossError(absl::StrCat("the answer is longer than ", request.max_body, " bytes"));
  }
  if (code != CURLE_OK) return absl::UnavailableError(*reason != '\0' ? reason : curl_easy_strerror(code));
  return std::move(answer.response);
}

}  // namespace temper
