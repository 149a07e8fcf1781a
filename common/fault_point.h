// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace temper {

// A moment at which a process may die, named for the interruption test (tests/e2e/test_interruptions.py), which kills
// one at each of them. Built only with TEMPER_FAULT_POINTS; costs a comparison then, and nothing otherwise.
//
// The environment says what happens: TEMPER_FAULT=NAME (or NAME@3: the third time that the process gets there) ends the
// process with SIGKILL, once, for it leaves a file NAME in the directory TEMPER_FAULT_DIR and spares whoever finds it.
#ifdef TEMPER_FAULT_POINTS
void FaultPoint(std::string_view name);
#else
inline void FaultPoint(std::string_view) {}
#endif

}  // namespace temper
