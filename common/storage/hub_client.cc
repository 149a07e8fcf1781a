// SPDX-License-Identifier: Apache-2.0
#include "common/storage/hub_client.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/failure.h"
#include "common/storage/remote_file_system.h"
#include "common/storage/retry.h"

namespace temper {
namespace {

constexpr int kMostRedirects = 5;
constexpr std::chrono::seconds kLongestRetryAfter{60};
constexpr std::chrono::seconds kSilenceLimit{30};
constexpr size_t kMostPages = 10'000;

// RFC 3986, 2.1; slashes too unless they are to stay.
std::string Escaped(std::string_view text, bool keep_slashes) {
  std::string escaped;
  for (const char c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || std::strchr("-._~", c) != nullptr;
    if (plain || (keep_slashes && c == '/')) {
      escaped += c;
    } else {
      absl::StrAppend(&escaped, "%", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    }
  }
  return escaped;
}

bool MayPass(int status) { return status == 408 || status == 429 || status >= 500; }
bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

std::chrono::seconds RetryAfter(const HttpResponse& response) {
  int64_t seconds = 0;
  if (!absl::SimpleAtoi(response.Header("retry-after"), &seconds) || seconds < 0) return {};
  return std::min(std::chrono::seconds(seconds), kLongestRetryAfter);
}

// "https://host:1/a" → "https://host:1"
std::string OriginOf(const std::string& url) {
  const size_t scheme = url.find("://");
  return scheme == url.npos ? url : url.substr(0, url.find_first_of("/?#", scheme + 3));
}

// A tag may be weak and is quoted: W/"abc".
std::string Unquoted(std::string_view tag) {
  if (tag.starts_with("W/")) tag.remove_prefix(2);
  if (tag.size() >= 2 && tag.starts_with('"') && tag.ends_with('"')) tag = tag.substr(1, tag.size() - 2);
  return std::string(tag);
}

bool IsSha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

// Where a list goes on (RFC 8288): <URL>; rel="next"
std::string NextPage(const HttpResponse& response) {
  for (const std::string& link : std::vector<std::string>(absl::StrSplit(response.Header("link"), ','))) {
    const size_t begin = link.find('<'), end = link.find('>');
    if (begin == link.npos || end == link.npos || link.find("rel=\"next\"", end) == link.npos) continue;
    return link.substr(begin + 1, end - begin - 1);
  }
  return "";
}

absl::Status Damaged(const std::string& message) {
  return WithCause(absl::DataLossError(message), FailureCause::kStorage);
}

absl::StatusOr<std::vector<HubEntry>> ReadEntries(const std::string& text, const std::string& url) {
  std::vector<HubEntry> entries;
  try {
    for (const nlohmann::json& item : nlohmann::json::parse(text)) {
      HubEntry entry{.path = item.at("path").get<std::string>(), .directory = item.at("type") == "directory"};
      if (!entry.directory) entry.size = item.at("size").get<int64_t>();
      if (item.contains("lfs") && item["lfs"].is_object()) {
        entry.size = item["lfs"].at("size").get<int64_t>();
        entry.sha256 = item["lfs"].at("oid").get<std::string>();
      }
      entries.push_back(std::move(entry));
    }
  } catch (const nlohmann::json::exception& error) {
    return Damaged(absl::StrCat(url, " answers with what is no list of files: ", error.what()));
  }
  return entries;
}

}  // namespace

HubClient::HubClient(std::string endpoint, std::string token, std::chrono::milliseconds deadline)
    : endpoint_(std::move(endpoint)), token_(std::move(token)), deadline_(deadline) {}

bool HubClient::IsOurs(const std::string& url) const { return OriginOf(url) == OriginOf(endpoint_); }

std::string HubClient::ApiUrl(const HubPlace& place, std::string_view what, std::string_view rest) const {
  return absl::StrCat(endpoint_, "/api/", place.dataset ? "datasets/" : "models/", place.repository, "/",
                      std::string(what), "/", Escaped(place.revision, false), std::string(rest));
}

std::string HubClient::FileUrl(const HubPlace& place) const {
  return absl::StrCat(endpoint_, "/", place.dataset ? "datasets/" : "", place.repository, "/resolve/",
                      Escaped(place.revision, false), "/", Escaped(place.path, true));
}

absl::StatusOr<HttpResponse> HubClient::Send(FetchRequest request) {
  if (IsOurs(request.url)) request.bearer_token = token_;
  request.silence = std::min<std::chrono::milliseconds>(kSilenceLimit, deadline_);
  RetryPauses pauses(deadline_);
  while (true) {
    absl::StatusOr<HttpResponse> response = http_.Send(request);
    if (response.ok() && !MayPass(response->status)) return response;
    if (!response.ok() && !absl::IsUnavailable(response.status())) {
      return absl::Status(response.status().code(),
                          absl::StrCat(OriginOf(request.url), ": ", std::string(response.status().message())));
    }
    if (pauses.Again(response.ok() ? RetryAfter(*response) : std::chrono::seconds(0))) continue;
    const std::string why =
        response.ok() ? absl::StrCat("HTTP ", response->status) : std::string(response.status().message());
    return StoreIsDown(absl::StrCat(OriginOf(request.url), ": ", why));  // a signed URL is a secret
  }
}

absl::Status HubClient::Explain(const HttpResponse& response, const std::string& url) const {
  const std::string code = response.Header("x-error-code");
  std::string message = absl::StrCat("HTTP ", response.status);
  if (!code.empty()) absl::StrAppend(&message, " ", code);
  if (const std::string said = response.Header("x-error-message"); !said.empty()) {
    absl::StrAppend(&message, " (", said, ")");
  }
  absl::StrAppend(&message, " from ", IsOurs(url) ? url : OriginOf(url));
  const bool known = !token_.empty();
  if (code == "RevisionNotFound") {
    return WithCause(
        absl::FailedPreconditionError(absl::StrCat(message, ". Correct the revision, which follows the @")),
        FailureCause::kUserInput);
  }
  if (code == "RepoNotFound" || (code.empty() && response.status == 401 && !known)) {
    const char* why = known ? "the token that this process has may not see it"
                            : "it is private: this process has no token (HF_TOKEN)";
    return WithCause(absl::FailedPreconditionError(
                         absl::StrCat(message, ". There is no such repository, or ", why, "; correct the URI")),
                     FailureCause::kUserInput);
  }
  if (code == "GatedRepo") {
    return WithCause(
        absl::PermissionDeniedError(absl::StrCat(
            message, ". Ask for access on the repository's page, and set HF_TOKEN where this process runs")),
        FailureCause::kUserInput);
  }
  if (response.status == 401 || response.status == 403) {
    return WrongCredentials(std::move(message), "HF_TOKEN where this process runs");
  }
  if (response.status == 404) return absl::NotFoundError(message);
  return WithCause(absl::UnavailableError(message), FailureCause::kStorage);
}

absl::StatusOr<std::string> HubClient::Resolve(const HubPlace& place) {
  const std::string url = ApiUrl(place, "revision", "");
  const absl::StatusOr<HttpResponse> response = Follow(place, nullptr, {.url = url});
  if (!response.ok()) return response.status();
  const nlohmann::json json = nlohmann::json::parse(response->body, nullptr, /*allow_exceptions=*/false);
  HubPlace commit = place;
  if (json.is_object() && json.contains("sha") && json["sha"].is_string()) {
    commit.revision = json["sha"].get<std::string>();
    if (commit.pinned()) return commit.revision;
  }
  return Damaged(absl::StrCat(url, " does not say which commit it is"));
}

absl::StatusOr<std::vector<HubEntry>> HubClient::Tree(const HubPlace& place, bool recursive) {
  const std::string below = place.path.empty() ? "" : absl::StrCat("/", Escaped(place.path, true));
  std::string url = ApiUrl(place, "tree", absl::StrCat(below, "?recursive=", recursive ? "true" : "false"));
  std::vector<HubEntry> all;
  std::set<std::string> pages;
  while (!url.empty()) {
    if (pages.size() == kMostPages || !pages.insert(url).second) {
      return Damaged(absl::StrCat(url, " is a list without an end"));
    }
    const absl::StatusOr<HttpResponse> response = Follow(place, nullptr, {.url = url});
    if (!response.ok()) return response.status();
    absl::StatusOr<std::vector<HubEntry>> page = ReadEntries(response->body, url);
    if (!page.ok()) return page.status();
    all.insert(all.end(), page->begin(), page->end());
    url = NextPage(*response);
    if (url.starts_with('/')) url = OriginOf(endpoint_) + url;
  }
  return all;
}

// The answer of where the redirects of our own hub lead, and, of a file, whether it is the one that is expected.
absl::StatusOr<HttpResponse> HubClient::Follow(const HubPlace& place, const HubEntry* entry, FetchRequest request) {
  const std::string first = request.url;
  for (int i = 0; i <= kMostRedirects; ++i) {
    absl::StatusOr<HttpResponse> response = Send(request);
    if (!response.ok()) return response;
    const std::string commit = response->Header("x-repo-commit");
    if (!commit.empty() && commit != place.revision && place.pinned()) {
      return Damaged(absl::StrCat(first, " is of the commit ", commit));
    }
    const std::string linked = Unquoted(response->Header("x-linked-etag"));
    if (entry != nullptr && !entry->sha256.empty() && IsSha256(linked) && linked != entry->sha256) {
      return Damaged(absl::StrCat(first, " has the SHA-256 ", linked, " instead of ", entry->sha256));
    }
    if (!IsRedirect(response->status)) {
      if (entry != nullptr && request.url != first && response->status / 100 == 2) {
        std::lock_guard lock(mutex_);
        locations_[first] = request.url;
      }
      if (response->status / 100 == 2) return response;
      return Explain(*response, request.url);
    }
    // Of a large file, the size and the digest are all that is asked of the hub itself.
    if (request.head && !response->Header("x-linked-size").empty()) return response;
    const std::string to = response->Header("location");
    request.url = to.starts_with('/') ? OriginOf(request.url) + to : to;
    if (!request.url.starts_with("http://") && !request.url.starts_with("https://")) break;
  }
  return WithCause(absl::UnavailableError(absl::StrCat(first, " redirects without an end")), FailureCause::kStorage);
}

absl::StatusOr<HubEntry> HubClient::Stat(const HubPlace& place) {
  const absl::StatusOr<HttpResponse> response = Follow(place, nullptr, {.url = FileUrl(place), .head = true});
  if (!response.ok()) return response.status();
  HubEntry entry{.path = place.path};
  const std::string linked = Unquoted(response->Header("x-linked-etag"));
  if (IsSha256(linked)) entry.sha256 = linked;
  std::string size = response->Header("x-linked-size");
  if (size.empty()) size = response->Header("content-length");
  if (!absl::SimpleAtoi(size, &entry.size)) return Damaged(absl::StrCat(FileUrl(place), " has no size"));
  return entry;
}

absl::StatusOr<HttpResponse> HubClient::SendThere(const HubPlace& place, const HubEntry& entry, ByteRange range) {
  const std::string url = FileUrl(place);
  FetchRequest request{.url = url, .range = range, .max_body = range.length};
  {
    std::lock_guard lock(mutex_);
    if (const auto found = locations_.find(url); found != locations_.end()) request.url = found->second;
  }
  if (request.url != url) {
    absl::StatusOr<HttpResponse> response = Send(request);
    if (!response.ok() || response->status / 100 == 2) return response;
    // Its signature has run out.
    std::lock_guard lock(mutex_);
    locations_.erase(url);
  }
  request.url = url;
  return Follow(place, &entry, std::move(request));
}

absl::Status HubClient::Read(const HubPlace& place, const HubEntry& entry, ByteRange range, char* out) {
  const absl::StatusOr<HttpResponse> response = SendThere(place, entry, range);
  if (!response.ok()) return response.status();
  const std::string& body = response->body;
  const bool whole = range.offset == 0 && range.length == entry.size && response->status == 200;
  const std::string expected =
      absl::StrCat("bytes ", range.offset, "-", range.offset + range.length - 1, "/", entry.size);
  if ((!whole && (response->status != 206 || response->Header("content-range") != expected)) ||
      static_cast<int64_t>(body.size()) != range.length) {
    return Damaged(absl::StrCat(FileUrl(place), " answers with ", body.size(), " bytes (HTTP ", response->status, ", ",
                                response->Header("content-range"), ") where ", expected, " were asked for"));
  }
  std::memcpy(out, body.data(), body.size());
  return absl::OkStatus();
}

}  // namespace temper
