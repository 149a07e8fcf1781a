// SPDX-License-Identifier: Apache-2.0
#include "worker/data/packer.h"

#include <iterator>

namespace temper {

Packer::Packer(std::vector<int64_t> order, std::function<int64_t(int64_t sample)> length, int64_t capacity,
               int64_t window)
    : order_(std::move(order)), length_(std::move(length)), capacity_(capacity), window_(window) {}

void Packer::Refill() {
  while (next_ < static_cast<int64_t>(order_.size()) && static_cast<int64_t>(places_.size()) < window_) {
    places_.insert(next_);
    by_length_.insert({length_(order_[next_]), -next_});
    ++next_;
  }
}

std::vector<int64_t> Packer::NextRow() {
  Refill();
  std::vector<int64_t> row;
  int64_t room = capacity_;
  const auto take = [&](int64_t place) {
    const int64_t length = length_(order_[place]);
    places_.erase(place);
    by_length_.erase({length, -place});
    row.push_back(order_[place]);
    room -= length;
  };
  if (places_.empty()) return row;
  take(*places_.begin());
  while (true) {
    const auto above = by_length_.upper_bound({room, 0});
    if (above == by_length_.begin()) return row;
    take(-std::prev(above)->second);
  }
}

}  // namespace temper
