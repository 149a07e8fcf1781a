// SPDX-License-Identifier: Apache-2.0
#include "server/web/download_tickets.h"

#include <algorithm>
#include <utility>

#include "common/secret.h"

namespace temper {

std::string DownloadTickets::Issue(File file) {
  const std::string ticket = NewSecret();
  std::lock_guard lock(mutex_);
  ForgetOld();
  if (issued_.size() >= kMost) {
    issued_.erase(std::min_element(issued_.begin(), issued_.end(), [](const auto& one, const auto& other) {
      return one.second.until < other.second.until;
    }));
  }
  const MonotonicTime now = clock_.Monotonic();
  issued_[ticket] = {.file = std::move(file), .until = now + kLife, .end = now + kLongestLife};
  return ticket;
}

std::optional<DownloadTickets::File> DownloadTickets::Find(const std::string& ticket) {
  std::lock_guard lock(mutex_);
  ForgetOld();
  const auto found = issued_.find(ticket);
  if (found == issued_.end()) return std::nullopt;
  Issued& issued = found->second;
  issued.until = std::min<MonotonicTime>(clock_.Monotonic() + kLife, issued.end);
  return issued.file;
}

void DownloadTickets::ForgetOld() {
  std::erase_if(issued_, [now = clock_.Monotonic()](const auto& entry) { return entry.second.until <= now; });
}

}  // namespace temper
