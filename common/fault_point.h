// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace temper {

// A moment at which a process may die, named for the tests that see to it: tests/e2e/test_interruptions.py kills one at
// each of them, tests/e2e/test_chaos.py does worse. Built only with TEMPER_FAULT_POINTS; costs a comparison then, and
// nothing otherwise.
//
// The environment says what happens: TEMPER_FAULT=NAME (or NAME@3: the third time that the process gets there) ends the
// process with SIGKILL, once, for it leaves a file NAME in the directory TEMPER_FAULT_DIR and spares whoever finds it.
// NAME:stop stops the process instead (SIGSTOP), NAME:delay=0.5 keeps it waiting there, NAME:pace=0.5 each time that it
// gets there. Several go with commas between them.
#ifdef TEMPER_FAULT_POINTS
void FaultPoint(std::string_view name);
#else
inline void FaultPoint(std::string_view) {}
#endif

}  // namespace temper
