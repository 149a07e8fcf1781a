// SPDX-License-Identifier: Apache-2.0
#include "worker/node/line_splitter.h"

#include <utility>

namespace temper {

void LineSplitter::Append(std::string_view bytes) {
  for (const char byte : bytes) {
    if (byte == '\n' || byte == '\r') {
      Flush();
    } else {
      line_ += byte;
      if (line_.size() >= max_bytes_) Flush();
    }
  }
}

void LineSplitter::Flush() {
  if (line_.empty()) return;
  on_line_(std::exchange(line_, {}));
}

}  // namespace temper
