// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "worker/text/tokenizer.h"

namespace temper {

// Where an id, special ones included, does not stand for the same token in a model's tokenizer and in a teacher's, in
// words: of the first such id, and how many more there are. Empty where all do. How texts are cut into tokens is not
// compared.
std::string TokenDifference(const Tokenizer& model, const Tokenizer& teacher);

}  // namespace temper
