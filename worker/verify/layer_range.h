// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/checkpoint/native_model.h"

namespace temper {

// Some layers of a model, which with its embedding, final norm and head are a model of their own. count 0: the whole
// model.
struct LayerRange {
  int64_t begin = 0;
  int64_t count = 0;
};

// All layers of a model, `at_a_time` after the other.
std::vector<LayerRange> SplitLayers(int64_t num_layers, int64_t at_a_time);

// config.json of that model: what it says of each layer is cut out.
nlohmann::ordered_json ConfigOfLayers(nlohmann::ordered_json config, LayerRange range);

// Opens a directory as that model; its repository has the tensors of the range alone, numbered from 0. Errors as
// OpenNativeRepository; OUT_OF_RANGE when the model has no such layers, UNIMPLEMENTED when they would be other ones
// alone: families count some kinds of layers from the first one, without a word in config.json.
absl::StatusOr<NativeRepository> OpenLayers(const std::string& model, LayerRange range);

}  // namespace temper
