// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/storage/http_client.h"
#include "common/storage/storage_uri.h"

namespace temper {

// What a repository has at a path.
struct HubEntry {
  std::string path;  // below the repository
  bool directory = false;
  int64_t size = 0;
  std::string sha256;  // of a large file; "" where the hub does not say
};

// What we ask a hub for: its API, and files by their ranges. Errors as common/storage/hub.h has them. Any thread.
class HubClient {
 public:
  HubClient(std::string endpoint, std::string token, std::chrono::milliseconds deadline);

  const std::string& endpoint() const { return endpoint_; }

  // The commit that the place's revision is now.
  absl::StatusOr<std::string> Resolve(const HubPlace& place);

  // Places have a commit as their revision, and below:
  // What is below the place's path. NOT_FOUND when there is no such directory.
  absl::StatusOr<std::vector<HubEntry>> Tree(const HubPlace& place, bool recursive);
  // Of a file; NOT_FOUND when there is none.
  absl::StatusOr<HubEntry> Stat(const HubPlace& place);
  // Exactly these bytes, to `out`. DATA_LOSS when the hub has another file there than `entry`.
  absl::Status Read(const HubPlace& place, const HubEntry& entry, ByteRange range, char* out);

 private:
  // Until it is answered with something that does not pass by itself.
  absl::StatusOr<HttpResponse> Send(FetchRequest request);
  absl::Status Explain(const HttpResponse& response, const std::string& url) const;
  std::string ApiUrl(const HubPlace& place, std::string_view what, std::string_view rest) const;
  std::string FileUrl(const HubPlace& place) const;
  bool IsOurs(const std::string& url) const;
  absl::StatusOr<HttpResponse> SendThere(const HubPlace& place, const HubEntry& entry, ByteRange range);
  absl::StatusOr<HttpResponse> Follow(const HubPlace& place, const HubEntry* entry, FetchRequest request);

  const std::string endpoint_;
  const std::string token_;
  const std::chrono::milliseconds deadline_;
  HttpClient http_;
  std::mutex mutex_;
  std::map<std::string, std::string> locations_;  // where the hub's redirects led, by its own URL; signed for a while
};

}  // namespace temper
