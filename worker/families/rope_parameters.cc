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

constexpr char kFull[] = "full_attention";
constexpr char kSliding[] = "sliding_attention";

// Collects what several places of a config say about one RoPE, in the transformers-5 spelling. Where two differ, an
// error goes to the reader.
class Unifier {
 public:
  explicit Unifier(ConfigReader& config) : config_(config) {}

  void Add(const char* where, const Json& object) {
    if (object.is_null()) return;
    if (!object.is_object()) return config_.AddError(where, "must be an object");
    for (const auto& [name, value] : object.items()) {
      if (value.is_null()) continue;
      const std::string key = name == "type" ? "rope_type" : name;
      const auto [known, added] = unified_.emplace(key, Json(value));
      if (!added && *known != value) {
        config_.AddError(where, absl::StrCat("says that `", key, "` is ", value.dump(), ", but it is ", known->dump(),
                                             " elsewhere in the config: make them agree"));
      }
    }
  }

  // `key` of the config is a base.
  void AddTheta(const char* key) {
    if (const Json& theta = config_.Raw(key); !theta.is_null()) Add(key, {{"rope_theta", theta}});
  }

  const Json& unified() const { return unified_; }

 private:
  ConfigReader& config_;
  Json unified_ = Json::object();
};

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

void ReadLongRope(ConfigReader& reader, int64_t max_positions, RopeConfig& rope) {
  const auto factors = [&](const char* key) {
    std::vector<double> values;
    const Json& list = reader.Raw(key);
    if (list.is_array()) {
      for (const Json& value : list) {
        if (value.is_number()) values.push_back(value.get<double>());
      }
    }
    if (values.empty() || values.size() != list.size()) reader.AddError(key, "must be a list of numbers");
    return values;
  };
  rope.short_factors = factors("short_factor");
  rope.long_factors = factors("long_factor");
  const double original = static_cast<double>(rope.original_max_positions);
  rope.factor = reader.Double("factor", static_cast<double>(max_positions) / original);
  const double derived = rope.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(rope.factor) / std::log(original));
  rope.attention_factor = reader.Double("attention_factor", derived);
}

// `unified` is read whole. `config` is asked for keys that stand beside it.
RopeConfig Parse(const Json& unified, const std::string& path, ConfigReader& config, const RopeDefaults& defaults) {
  ConfigReader reader(unified, path);
  RopeConfig rope;
  rope.theta = reader.Double("rope_theta", defaults.theta);
  if (defaults.partial) {
    rope.rotated_share = reader.Double("partial_rotary_factor", config.Double("partial_rotary_factor", 1.0));
    if (!(rope.rotated_share > 0 && rope.rotated_share <= 1)) {
      reader.AddError("partial_rotary_factor",
                      absl::StrCat("must be over 0 and at most 1, but is ", rope.rotated_share));
    }
  } else {
    reader.Expect("partial_rotary_factor", 1.0, "the whole head is rotated");
    config.Expect("partial_rotary_factor", 1.0, "the whole head is rotated");
  }
  config.Expect("rope_interleaved", false, "dimension i is rotated with dimension i + head_dim / 2");
  // A value beside the rope's own keys comes first, as in transformers.
  const int64_t outer_original = config.Int("original_max_position_embeddings", defaults.original_max_positions);
  auto original = [&] {
    const int64_t inner = reader.Size("original_max_position_embeddings", defaults.max_positions);
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
    rope.original_max_positions = defaults.max_positions;
  } else if (type == "llama3") {
    rope.kind = RopeConfig::Kind::kLlama3;
    rope.factor = reader.Double("factor");
    rope.low_freq_factor = reader.Double("low_freq_factor");
    rope.high_freq_factor = reader.Double("high_freq_factor");
    rope.original_max_positions = original();
  } else if (type == "yarn") {
    rope.kind = RopeConfig::Kind::kYarn;
    rope.original_max_positions = original();
    rope.factor = reader.Double("factor", static_cast<double>(defaults.max_positions) / rope.original_max_positions);
    ReadYarn(reader, rope);
  } else if (type == "longrope" || type == "su") {
    rope.kind = RopeConfig::Kind::kLongRope;
    rope.original_max_positions = original();
    ReadLongRope(reader, defaults.max_positions, rope);
  } else {
    reader.AddUnsupported(
        "rope_type",
        absl::StrCat("is \"", type, "\"; supported are default, linear, dynamic, llama3, yarn and longrope"));
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

const Json& Member(const Json& object, const char* key) {
  static const Json kNull;
  const Json* member = object.is_object() ? Present(object, key) : nullptr;
  return member == nullptr ? kNull : *member;
}

bool IsLongRope(const Json& parameters) { return parameters.value("rope_type", "default") == "longrope"; }

// What stands beside `rope_scaling` in the spelling of transformers 4, and in `rope_parameters` in that of 5.
std::vector<const char*> OuterKeys(const Json& parameters) {
  std::vector<const char*> keys = {"rope_theta", "partial_rotary_factor"};
  if (IsLongRope(parameters)) keys.push_back("original_max_position_embeddings");
  return keys;
}

// `rope_scaling` of transformers 4 for a RoPE that is spelled the new way. `original_beside`: the config has the
// original positions beside it, as Phi-3's do.
Json OldScaling(Json parameters, bool original_beside) {
  parameters.erase("rope_theta");
  parameters.erase("partial_rotary_factor");
  if (IsLongRope(parameters)) {  // Phi-3's is older than `rope_type`, and its readers want `type` and the factors alone
    parameters["type"] = parameters["rope_type"];
    parameters.erase("rope_type");
    if (original_beside) parameters.erase("original_max_position_embeddings");
    return parameters;
  }
  return parameters.value("rope_type", "default") == "default" ? Json() : parameters;
}

// A missing type is "default"; "type" is its old name.
Json NewParameters(const Json* parameters, const Json* scaling, const Json* theta) {
  Json unified = parameters != nullptr ? *parameters : Json::object();
  if (scaling != nullptr) {
    for (const auto& [key, value] : scaling->items()) unified.emplace(key == "type" ? "rope_type" : key, Json(value));
  }
  if (theta != nullptr) unified.emplace("rope_theta", Json(*theta));
  unified.emplace("rope_type", "default");
  return unified;
}

void WriteBothOfLayerTypes(Json& config, const Json* parameters, const Json* theta, const Json* scaling,
                           const Json* local_theta) {
  const Json old = parameters != nullptr ? *parameters : Json::object();
  const Json full = NewParameters(Present(old, kFull), scaling, theta);
  const Json sliding = NewParameters(Present(old, kSliding), nullptr, local_theta);
  if (theta == nullptr && full.contains("rope_theta")) config["rope_theta"] = full["rope_theta"];
  if (local_theta == nullptr && sliding.contains("rope_theta")) config["rope_local_base_freq"] = sliding["rope_theta"];
  if (scaling == nullptr) config["rope_scaling"] = OldScaling(full, /*original_beside=*/false);
  config["rope_parameters"] = {{kFull, full}, {kSliding, sliding}};
}

}  // namespace

RopeConfig ReadRope(ConfigReader& config, const RopeDefaults& defaults) {
  Unifier rope(config);
  rope.Add("rope_parameters", config.Raw("rope_parameters"));
  rope.Add("rope_scaling", config.Raw("rope_scaling"));
  rope.AddTheta("rope_theta");
  return Parse(rope.unified(), "rope_parameters", config, defaults);
}

std::vector<RopeConfig> ReadRopeOfLayerTypes(ConfigReader& config, const RopeDefaults& full,
                                             const RopeDefaults& sliding) {
  const Json& parameters = config.Raw("rope_parameters");
  if (parameters.is_object()) {
    for (const auto& [key, value] : parameters.items()) {
      if (key == kFull || key == kSliding) continue;
      config.AddError("rope_parameters",
                      absl::StrCat("has a key `", key, "`; it must hold ", kFull, " and ", kSliding));
    }
  }
  Unifier full_rope(config), sliding_rope(config);
  full_rope.Add("rope_parameters", Member(parameters, kFull));
  full_rope.Add("rope_scaling", config.Raw("rope_scaling"));
  full_rope.AddTheta("rope_theta");
  sliding_rope.Add("rope_parameters", Member(parameters, kSliding));
  sliding_rope.AddTheta("rope_local_base_freq");
  return {Parse(full_rope.unified(), absl::StrCat("rope_parameters.", kFull), config, full),
          Parse(sliding_rope.unified(), absl::StrCat("rope_parameters.", kSliding), config, sliding)};
}

void WriteBothRopeSpellings(nlohmann::ordered_json& config) {
  const Json source = config;
  const Json* parameters = Present(source, "rope_parameters");
  const Json* theta = Present(source, "rope_theta");
  const Json* scaling = Present(source, "rope_scaling");
  const Json* local_theta = Present(source, "rope_local_base_freq");
  if (parameters == nullptr && theta == nullptr && scaling == nullptr) return;
  const bool of_layer_types =
      local_theta != nullptr ||
      (parameters != nullptr && (parameters->contains(kFull) || parameters->contains(kSliding)));
  if (of_layer_types) return WriteBothOfLayerTypes(config, parameters, theta, scaling, local_theta);
  Json unified = NewParameters(parameters, scaling, theta);
  for (const char* key : OuterKeys(unified)) {
    if (const Json* outer = Present(source, key)) {
      unified.emplace(key, Json(*outer));
    } else if (unified.contains(key)) {
      config[key] = unified[key];
    }
  }
  const bool original_beside = Present(source, "original_max_position_embeddings") != nullptr;
  if (scaling == nullptr) config["rope_scaling"] = OldScaling(unified, original_beside);
  config["rope_parameters"] = unified;
}

}  // namespace temper
