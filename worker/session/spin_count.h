// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>

namespace temper {

// How often a compute thread that waits (libgomp) looks for work before it sleeps; of the environment, since libgomp
// reads it when it is loaded. Its own default, 300,000, keeps the threads that it waits for from running where anything
// else wants the cores: a step then takes ten times as long. Not to spin at all costs 7 % of a step where nothing does
// (docs/EXPERIMENTS.md).
inline constexpr const char* kSpinCountVariable = "GOMP_SPINCOUNT";
inline constexpr const char* kSpinCount = "5000";

// Whether the user has said how threads wait.
inline bool SpinCountIsChosen() {
  return std::getenv(kSpinCountVariable) != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr;
}

}  // namespace temper
