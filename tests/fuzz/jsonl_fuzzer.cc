// SPDX-License-Identifier: Apache-2.0
// A line of data.
#include "tests/fuzz/fuzz_input.h"
#include "worker/data/sample.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto sample = temper::ParseSample(temper::FuzzText(data, size), {}, "fuzz, line 1");
  if (!sample.ok()) return 0;
  temper::Require(sample->prompt_messages <= sample->conversation.messages.size());
  return 0;
}
