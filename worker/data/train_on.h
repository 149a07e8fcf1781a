// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper {

// Which tokens of a sample are learned.
enum class TrainOn {
  kDefault,     // conversations: kAssistant; prompts with completions: kCompletion; texts: kAll
  kAssistant,   // what the assistant says, in every message
  kCompletion,  // the completion; of a completion in messages what the assistant says
  kAll,         // every token
  kLastTurn,    // what the assistant says in its last message
};

}  // namespace temper
