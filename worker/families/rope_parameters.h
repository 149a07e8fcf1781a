// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "worker/families/config_reader.h"
#include "worker/model/model_config.h"

namespace temper {

// Rotary position embeddings stand in config.json in two spellings:
//   transformers 4   `rope_theta` and `rope_scaling` (null, or an object with `rope_type` or, older, `type`)
//   transformers 5   `rope_parameters`: both in one object
// A config may have either or both. A key means the same wherever it stands, so both spellings have to agree.

// Reads them as transformers 5 does, for a model with `max_positions`. `default_theta` stands in for a missing base.
RopeConfig ReadRope(ConfigReader& config, int64_t max_positions, double default_theta);

// Adds the spelling that is missing, for readers of either version; nothing when there is none. Readers silently take
// a base of 10000 when a config has only the spelling that they don't know.
void WriteBothRopeSpellings(nlohmann::ordered_json& config);

}  // namespace temper
