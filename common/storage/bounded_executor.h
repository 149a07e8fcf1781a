// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arrow/util/thread_pool.h>

#include <memory>
#include <semaphore>

namespace temper {

// Runs tasks on another executor, and lets only some be under way: who has one more waits until one is done. Arrow's
// uploads are tasks that hold what they send; without a bound, a disk or a network that is slower than who writes would
// fill the memory. Tasks that come from the executor's own threads don't wait. `other` must outlive it. Any thread.
class BoundedExecutor final : public arrow::internal::Executor {
 public:
  BoundedExecutor(arrow::internal::Executor* other, int most);

  int GetCapacity() override { return other_->GetCapacity(); }
  bool OwnsThisThread() override { return other_->OwnsThisThread(); }

 private:
  arrow::Status SpawnReal(arrow::internal::TaskHints hints, arrow::internal::FnOnce<void()> task,
                          arrow::StopToken stop_token, StopCallback&& stop_callback) override;

  arrow::internal::Executor* const other_;
  std::counting_semaphore<> free_;
};

}  // namespace temper
