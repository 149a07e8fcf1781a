// SPDX-License-Identifier: Apache-2.0
// A line of data: of a sample, of one with a teacher's words, of a pair.
#include "tests/fuzz/fuzz_input.h"
#include "worker/data/preference_pair.h"
#include "worker/data/sample.h"

namespace {

void CheckPrompt(const temper::Sample& sample) {
  temper::Require(sample.prompt_messages <= sample.conversation.messages.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto line = temper::FuzzText(data, size);
  for (const int64_t teacher_vocab : {0, 100}) {
    if (const auto sample = temper::ParseSample(line, {}, "fuzz, line 1", teacher_vocab); sample.ok()) {
      CheckPrompt(*sample);
    }
  }
  if (const auto pair = temper::ParsePreferencePair(line, {}, "fuzz, line 1"); pair.ok()) {
    CheckPrompt(pair->chosen);
    CheckPrompt(pair->rejected);
  }
  return 0;
}
