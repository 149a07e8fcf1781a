// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "client/command/terminal.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// The whole report for people: the first samples, what is learned in them marked by colour (between ⟦ and ⟧ where there
// is none), counts, memory, and every check.
std::string PreflightText(const v1::PreflightReport& report, const Terminal& terminal);

// "about 3.2 GB of memory, 23.1 GB are there".
std::string MemoryText(const v1::MemoryEstimate& memory);

}  // namespace temper::command
