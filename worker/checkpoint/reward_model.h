// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/status/statusor.h"
#include "worker/checkpoint/hf_repository.h"
#include "worker/checkpoint/native_model.h"

namespace temper {

// What a config.json says of padding; some say −1 for none.
std::optional<int64_t> ConfiguredPadToken(const nlohmann::ordered_json& config);

// Takes a directory for a reward model's, HF's sequence classification model with one label.
//
// That of a language model is from now on as if it were one, for who loads, trains, exports and proves: config.json has
// the class, the label and the token that rows are padded with; there is no LM head; and `score.weight` is one more
// tensor, in the embedding's dtype, drawn as transformers draws it. A reward model keeps its score, and the padding
// token that it was trained with.
//
// Errors as FindRewardFamily and ConfigureModel have them.
absl::StatusOr<NativeRepository> TakeForRewardModel(std::unique_ptr<HfRepository> repository,
                                                    const NewScore& new_score);

}  // namespace temper
