// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "worker/text/temper_text.h"

namespace temper {

// A buffer of the Rust library, given back on destruction.
class RustBytes {
 public:
  RustBytes() = default;
  RustBytes(const RustBytes&) = delete;
  RustBytes& operator=(const RustBytes&) = delete;
  ~RustBytes() { temper_text_free(bytes_); }

  // For a call that fills it in; at most once.
  temper_text_bytes* out() { return &bytes_; }

  std::string_view view() const { return {reinterpret_cast<const char*>(bytes_.data), bytes_.size}; }
  std::string str() const { return std::string(view()); }

  // The buffer as plain items.
  template <typename T>
  std::vector<T> items() const {
    std::vector<T> items(bytes_.size / sizeof(T));
    if (!items.empty()) std::memcpy(items.data(), bytes_.data, items.size() * sizeof(T));
    return items;
  }

 private:
  temper_text_bytes bytes_{nullptr, 0};
};

inline const uint8_t* RustText(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

}  // namespace temper
