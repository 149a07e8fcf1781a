// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

namespace temper {

// Memory that changes hands between units of the same size: the first touch of new memory costs several times what the
// second does. One thread.
class BufferPool {
 public:
  explicit BufferPool(at::Device device) : device_(device) {}

  // Memory that was given back, or new memory, aligned as torch aligns it. Its content may be anything.
  at::DataPtr Take(size_t bytes);
  void Give(size_t bytes, at::DataPtr memory) { free_[bytes].push_back(std::move(memory)); }

 private:
  at::Device device_;
  std::map<size_t, std::vector<at::DataPtr>> free_;
};

}  // namespace temper
