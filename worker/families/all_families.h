// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/families/family_spec.h"

namespace temper {

// Each is defined in the file of its name; families.cc lists them.
FamilySpec Gemma2Family();
FamilySpec Gemma3TextFamily();
FamilySpec GptOssFamily();
FamilySpec GraniteFamily();
FamilySpec LlamaFamily();
FamilySpec MistralFamily();
FamilySpec MixtralFamily();
FamilySpec Olmo2Family();
FamilySpec Olmo3Family();
FamilySpec Phi3Family();
FamilySpec Qwen2Family();
FamilySpec Qwen3Family();
FamilySpec Qwen3MoeFamily();
FamilySpec SmolLm3Family();

}  // namespace temper
