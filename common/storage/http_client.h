// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace temper {

struct ByteRange {
  int64_t offset = 0;
  int64_t length = 0;  // at least 1
};

// HttpRequest is what temper-server is asked.
struct FetchRequest {
  std::string url;
  std::string bearer_token;  // "": none
  std::optional<ByteRange> range;
  bool head = false;
  int64_t max_body = 64 << 20;                                   // of a 2xx; a longer one is an error
  std::chrono::milliseconds silence = std::chrono::seconds(30);  // longer, and the attempt is given up
};

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // by lower-case name
  std::string body;                            // of anything but a 2xx, the first 64 KiB

  // "" when there is none.
  std::string Header(const std::string& name) const;
};

// GET and HEAD over http:// and https:// (libcurl), by the authorities and proxies that the machine's environment
// names. Connections are kept for the next request. Any thread.
class HttpClient {
 public:
  HttpClient() = default;
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // One attempt; redirects are answers. UNAVAILABLE when no whole answer came: a connection is waited for as long as
  // silence is, and 10 s at most. DATA_LOSS when the body is too long.
  absl::StatusOr<HttpResponse> Send(const FetchRequest& request);

 private:
  std::mutex mutex_;
  std::vector<void*> idle_;  // CURL handles, which own their connections
};

}  // namespace temper
