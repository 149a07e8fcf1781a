// SPDX-License-Identifier: Apache-2.0
#include "common/storage/bounded_executor.h"

#include <utility>

namespace temper {

BoundedExecutor::BoundedExecutor(arrow::internal::Executor* other, int most) : other_(other), free_(most) {}

arrow::Status BoundedExecutor::SpawnReal(arrow::internal::TaskHints hints, arrow::internal::FnOnce<void()> task,
                                         arrow::StopToken stop_token, StopCallback&& stop_callback) {
  if (OwnsThisThread()) return other_->Spawn(hints, std::move(task), std::move(stop_token), std::move(stop_callback));
  free_.acquire();
  // Goes with the task, whether it ran or was dropped.
  const std::shared_ptr<void> place(nullptr, [this](void*) { free_.release(); });
  auto bounded = [place, task = std::move(task)]() mutable { std::move(task)(); };
  return other_->Spawn(hints, std::move(bounded), std::move(stop_token), std::move(stop_callback));
}

}  // namespace temper
