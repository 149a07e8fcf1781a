// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/buffer_pool.h"

namespace temper {

at::DataPtr BufferPool::Take(size_t bytes) {
  std::vector<at::DataPtr>& free = free_[bytes];
  if (free.empty()) return c10::GetAllocator(device_.type())->allocate(bytes);
  at::DataPtr memory = std::move(free.back());
  free.pop_back();
  return memory;
}

}  // namespace temper
