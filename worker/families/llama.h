// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/families/family_spec.h"

namespace temper {

// Llama 2 and 3.x, SmolLM2 and everything else that says LlamaForCausalLM.
FamilySpec LlamaFamily();

}  // namespace temper
