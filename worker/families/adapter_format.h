// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper {

// How adapters on experts lie in an adapter's file. Other adapters lie in one way.
enum class AdapterFormat {
  kPeft,  // stacked, as PEFT has them for the parameters of transformers' own model (`target_parameters`)
  kVllm,  // as vLLM reads them: expert by expert where a checkpoint of the family has its experts so, else stacked
};

}  // namespace temper
