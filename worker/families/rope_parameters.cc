// SPDX-License-Identifier: Apache-2.0
#include "worker/families/rope_parameters.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

const Json* Present(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// One object in the transformers-5 spelling. What both spellings say is compared; an error goes to the reader.
Json Unified(ConfigReader& config) {
  Json unified = Json::object();
  auto merge = [&](const char* where, const Json& object) {
    if (object.is_null()) return;
    if (!object.is_object()) return config.AddError(where, "must be an object");
    for (const auto& [name, value] : object.items()) {
      if (value.is_null()) continue;
      const std::string key = name == "type" ? "rope_type" : name;
      const auto [known, added] = unified.emplace(key, Json(value));
      if (!added && *known != value) {
        config.AddError(where, absl::StrCat("says that `", key, "` is ", value.dump(), ", but it is ", known->dump(),
                                            " elsewhere in the config: make them agree"));
      }
    }
  };
  merge("rope_parameters", config.Raw("rope_parameters"));
  merge("rope_scaling", config.Raw("rope_scaling"));
  if (const Json& theta = config.Raw("rope_theta"); !theta.is_null()) merge("rope_theta", {{"rope_theta", theta}});
  return unified;
}

// mscale of YaRN (Peng et al. 2023, eq. 22), as transformers computes it.
double YarnScale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

void ReadYarn(ConfigReader& reader, RopeConfig& rope) {
  rope.beta_fast = reader.Double("beta_fast", 32.0);
  rope.beta_slow = reader.Double("beta_slow", 1.0);
  rope.truncate = reader.Bool("truncate", true);
  const double mscale = reader.Double("mscale", 0.0);
  const double mscale_all_dim = reader.Double("mscale_all_dim", 0.0);
  const double derived = mscale != 0 && mscale_all_dim != 0
                             ? YarnScale(rope.factor, mscale) / YarnScale(rope.factor, mscale_all_dim)
                             : YarnScale(rope.factor, 1.0);
  rope.attention_factor = reader.Double("attention_factor", derived);
}

}  // namespace

RopeConfig ReadRope(ConfigReader& config, int64_t max_positions, double default_theta) {
  const Json unified = Unified(config);
  ConfigReader reader(unified, "rope_parameters");
  RopeConfig rope;
  rope.theta = reader.Double("rope_theta", default_theta);
  reader.Expect("partial_rotary_factor", 1.0, "the whole head is rotated");
  config.Expect("partial_rotary_factor", 1.0, "the whole head is rotated");
  config.Expect("rope_interleaved", false, "dimension i is rotated with dimension i + head_dim / 2");
  // A value beside the rope's own keys comes first, as in transformers.
  const int64_t outer_original = config.Int("original_max_position_embeddings", 0);
  auto original = [&] {
    const int64_t inner = reader.Size("original_max_position_embeddings", max_positions);
    return outer_original > 0 ? outer_original : inner;
  };

  const std::string type = reader.String("rope_type", "default");
  if (type == "default") {
    rope.kind = RopeConfig::Kind::kDefault;
  } else if (type == "linear") {
    rope.kind = RopeConfig::Kind::kLinear;
    rope.factor = reader.Double("factor");
  } else if (type == "dynamic") {
    rope.kind = RopeConfig::Kind::kDynamic;
    rope.factor = reader.Double("factor");
    // transformers takes the model's own positions and ignores this key for this type.
    (void)reader.Raw("original_max_position_embeddings");
    rope.original_max_positions = max_positions;
  } else if (type == "llama3") {
    rope.kind = RopeConfig::Kind::kLlama3;
    rope.factor = reader.Double("factor");
    rope.low_freq_factor = reader.Double("low_freq_factor");
    rope.high_freq_factor = reader.Double("high_freq_factor");
    rope.original_max_positions = original();
  } else if (type == "yarn") {
    rope.kind = RopeConfig::Kind::kYarn;
    rope.original_max_positions = original();
    rope.factor = reader.Double("factor", static_cast<double>(max_positions) / rope.original_max_positions);
    ReadYarn(reader, rope);
  } else {
    reader.AddError("rope_type",
                    absl::StrCat("is \"", type, "\"; supported are default, linear, dynamic, llama3 and yarn"));
    for (const auto& [key, value] : unified.items()) (void)reader.Raw(key);
  }
  if (!(rope.theta > 0)) reader.AddError("rope_theta", absl::StrCat("must be over 0, but is ", rope.theta));
  if (!(rope.factor > 0)) reader.AddError("factor", absl::StrCat("must be over 0, but is ", rope.factor));
  if (rope.kind == RopeConfig::Kind::kLlama3 &&
      !(rope.low_freq_factor > 0 && rope.high_freq_factor > rope.low_freq_factor)) {
    reader.AddError("high_freq_factor", "must be over `low_freq_factor`, which must be over 0");
  }
  config.Merge(reader.Finish());
  return rope;
}

void WriteBothRopeSpellings(nlohmann::ordered_json& config) {
  const Json* parameters = Present(config, "rope_parameters");
  const Json* theta = Present(config, "rope_theta");
  const Json* scaling = Present(config, "rope_scaling");
  if (parameters == nullptr && theta == nullptr && scaling == nullptr) return;
  Json unified = parameters != nullptr ? *parameters : Json::object();
  if (scaling != nullptr) {
    for (const auto& [key, value] : scaling->items()) unified.emplace(key == "type" ? "rope_type" : key, Json(value));
  }
  if (theta != nullptr) unified.emplace("rope_theta", Json(*theta));
  unified.emplace("rope_type", "default");

  if (theta == nullptr && unified.contains("rope_theta")) config["rope_theta"] = unified["rope_theta"];
  if (scaling == nullptr) {
    Json old_spelling = unified;
    old_spelling.erase("rope_theta");
    config["rope_scaling"] = unified["rope_type"] == "default" ? Json() : old_spelling;
  }
  config["rope_parameters"] = unified;
}

}  // namespace temper
