// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace temper {

// What NCCL has under way, and since when, as c10d's flight recorder has it (JSON); empty in a build without
// TEMPER_CUDA. Any thread.
std::string CollectivesUnderWay();

}  // namespace temper
