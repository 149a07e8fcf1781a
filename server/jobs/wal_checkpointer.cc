// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/wal_checkpointer.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

namespace temper {

WalCheckpointer::WalCheckpointer(Sqlite& writer, std::mutex& write_mutex, std::unique_ptr<Sqlite> connection,
                                 WalLimits limits)
    : writer_(writer), write_mutex_(write_mutex), connection_(std::move(connection)), limits_(limits), thread_([this] {
        Run();
      }) {
  writer_.OnCommit([this](int pages) {
    if (pages < limits_.pages) return;
    std::lock_guard lock(mutex_);
    pages_ = pages;
    changed_.notify_all();
  });
}

WalCheckpointer::~WalCheckpointer() {
  {
    std::lock_guard lock(write_mutex_);
    writer_.OnCommit(nullptr);
  }
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void WalCheckpointer::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closing_ || pages_ > 0; });
    if (closing_) return;
    const int pages = std::exchange(pages_, 0);
    lock.unlock();
    absl::Status status = connection_->Checkpoint();
    if (status.ok() && pages >= limits_.most_pages) {
      // Little is left to do: what was committed meanwhile.
      std::lock_guard writing(write_mutex_);
      status = connection_->Checkpoint();
    }
    // Nothing is lost: the log holds it, and the next commit brings us here again.
    if (!status.ok()) spdlog::warn("{}", std::string(status.message()));
    lock.lock();
  }
}

}  // namespace temper
