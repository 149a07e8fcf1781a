// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/data/sample.h"

namespace temper {

// Two answers to the same prompt, the first of which is preferred: samples with a prompt and a completion, both texts
// or both messages.
struct PreferencePair {
  Sample chosen, rejected;
};

// Of one whose samples have this form: "a pair of texts {"chosen": "…", "rejected": "…"}", for messages.
std::string DescribePair(SampleForm form);

// Parses and checks one line:
//   {"prompt": …, "chosen": …, "rejected": …}   all texts, or all lists of messages
//   {"chosen": …, "rejected": …}                the prompt is what both begin with
// Messages whose `prompt` is a text begin with the prompt themselves. What both begin with is found as TRL does: whole
// messages, or characters, of which a last space belongs to the answers; and of an answer that the other one begins
// with, at least one is left. Other fields as ParseSample. INVALID_ARGUMENT begins with `where` and names the field.
absl::StatusOr<PreferencePair> ParsePreferencePair(std::string_view line, const ColumnNames& columns,
                                                   const std::string& where);

}  // namespace temper
