// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <utility>
#include <vector>

namespace temper {

// Packs samples into rows of at most `capacity` tokens, on the fly and without splitting one.
//
// Only the next `window` samples of the order are looked at: a row takes the oldest of them, so that none waits for
// long, and then again and again the longest that still fits (the oldest of equals). The rows are a function of order,
// lengths, capacity and window alone.
class Packer {
 public:
  static constexpr int64_t kWindow = 1024;

  // `order` is the samples' order; `length` gives a sample's tokens, 1 to `capacity`.
  Packer(std::vector<int64_t> order, std::function<int64_t(int64_t sample)> length, int64_t capacity,
         int64_t window = kWindow);

  // The samples of the next row. Empty after the last one.
  std::vector<int64_t> NextRow();

 private:
  void Refill();

  std::vector<int64_t> order_;
  std::function<int64_t(int64_t)> length_;
  int64_t capacity_;
  int64_t window_;
  int64_t next_ = 0;          // place in the order of the first sample that is not in the window yet
  std::set<int64_t> places_;  // of the window's samples in the order
  // The same by length, as (length, -place): the last one not above (room, 0) is the longest that fits, and the oldest
  // of those.
  std::set<std::pair<int64_t, int64_t>> by_length_;
};

}  // namespace temper
