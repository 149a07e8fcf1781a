// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "worker/data/sample.h"

namespace temper {

// Files with samples, all of one shape.
struct DataSource {
  std::string uri;  // of a file, a directory or a pattern, as FindDataFiles has it
  ColumnNames columns;
  // How often an epoch takes each of its samples: 2 takes them twice, 0.5 takes one half in one epoch and the other in
  // the next.
  double weight = 1;
};

}  // namespace temper
