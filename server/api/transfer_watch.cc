// SPDX-License-Identifier: Apache-2.0
#include "server/api/transfer_watch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace temper {
namespace {

constexpr std::chrono::milliseconds kLongestLook{1000};  // between two of them

}  // namespace

TransferWatch::TransferWatch(std::chrono::milliseconds limit) : limit_(limit), thread_([this] { Run(); }) {}

TransferWatch::~TransferWatch() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void TransferWatch::Add(std::shared_ptr<Transfer> transfer) {
  std::lock_guard lock(mutex_);
  Transfer* const key = transfer.get();
  transfers_[key] = std::move(transfer);
}

void TransferWatch::Remove(Transfer* transfer) {
  std::unique_lock lock(mutex_);
  const auto removed = transfers_.extract(transfer);
  lock.unlock();  // before it is destroyed
}

void TransferWatch::Run() {
  const auto interval = std::clamp(limit_ / 4, std::chrono::milliseconds(1), kLongestLook);
  const std::string why = absl::StrCat("the client has neither sent nor taken anything for ",
                                       absl::FormatDuration(absl::FromChrono(limit_)));
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, interval, [this] { return closing_; })) {
    std::vector<std::shared_ptr<Transfer>> transfers;
    for (const auto& [key, transfer] : transfers_) transfers.push_back(transfer);
    lock.unlock();
    const auto time = std::chrono::steady_clock::now() - limit_;
    for (const auto& transfer : transfers) transfer->EndIfWaitingSince(time, why);
    transfers.clear();  // those that were removed meanwhile
    lock.lock();
  }
}

}  // namespace temper
