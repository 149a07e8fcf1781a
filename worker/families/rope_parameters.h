// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "worker/families/config_reader.h"
#include "worker/model/model_config.h"

namespace temper {

// Rotary position embeddings stand in config.json in two spellings:
//   transformers 4   `rope_theta` and `rope_scaling` (null, or an object with `rope_type` or, older, `type`)
//   transformers 5   `rope_parameters`: both in one object
// A config may have either or both. A key means the same wherever it stands, so both spellings have to agree.

// What a family's config class takes for what is not there.
struct RopeDefaults {
  int64_t max_positions = 0;  // the model's
  double theta = 10000.0;
  // 0: the model's positions.
  int64_t original_max_positions = 0;
  // Whether `partial_rotary_factor` is read; elsewhere it must be 1.
  bool partial = false;
};

// Reads them as transformers 5 does.
RopeConfig ReadRope(ConfigReader& config, const RopeDefaults& defaults);

// Two of them, {of full attention, of sliding attention}: `rope_parameters` holds one object a layer type, or, in the
// old spelling, `rope_theta` and `rope_scaling` are the first one's and `rope_local_base_freq` is the second one's
// base.
std::vector<RopeConfig> ReadRopeOfLayerTypes(ConfigReader& config, const RopeDefaults& full,
                                             const RopeDefaults& sliding);

// Adds the spelling that is missing, for readers of either version; nothing when there is none. Readers silently take
// a base of 10000 when a config has only the spelling that they don't know.
void WriteBothRopeSpellings(nlohmann::ordered_json& config);

}  // namespace temper
