// SPDX-License-Identifier: Apache-2.0
// Looks like libtemper_python.so of another build; who calls it anyway dies.
#include <cstdlib>

extern "C" const char* temper_python_interface() { return "another"; }
extern "C" void temper_open_hf_reference() { std::abort(); }
