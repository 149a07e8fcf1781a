// SPDX-License-Identifier: Apache-2.0
#include "worker/families/families.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/families/all_families.h"

namespace temper {

const std::vector<FamilySpec>& Families() {
  static const std::vector<FamilySpec> families = {
      LlamaFamily(),   Gemma2Family(),  Gemma3TextFamily(), GptOssFamily(),  GraniteFamily(),
      MistralFamily(), MixtralFamily(), Olmo2Family(),      Olmo3Family(),   Phi3Family(),
      Qwen2Family(),   Qwen3Family(),   Qwen3MoeFamily(),   SmolLm3Family(),
  };
  return families;
}

namespace {

absl::StatusOr<std::string> ArchitectureOf(const nlohmann::ordered_json& config) {
  const auto names = config.find("architectures");
  if (names == config.end() || !names->is_array() || names->empty() || !(*names)[0].is_string()) {
    return absl::InvalidArgumentError(
        "config.json: `architectures` must name the model's class, for example [\"LlamaForCausalLM\"]");
  }
  return (*names)[0].get<std::string>();
}

absl::Status NotSupported(const std::string& architecture, const std::vector<std::string>& supported) {
  return absl::UnimplementedError(absl::StrCat("config.json: architecture ", architecture,
                                               " is not supported. Supported: ", absl::StrJoin(supported, ", ")));
}

absl::Status CannotReadQuantized(const std::string& method) {
  return absl::UnimplementedError(absl::StrCat("config.json: the checkpoint is quantized with ", method,
                                               "; train the original, or de-quantize it first"));
}

// transformers says the number of labels by their names alone, of which it makes two where there are none.
void ReadScore(ConfigReader& config, ModelConfig& model) {
  const nlohmann::ordered_json& names = config.Raw("id2label");
  const int64_t labels = config.Int("num_labels", names.is_object() ? static_cast<int64_t>(names.size()) : 2);
  if (labels != 1) {
    config.AddError("id2label", absl::StrCat("names ", labels, " labels, but a reward is one number"));
  }
  model.score_head = true;
  model.pad_token = config.Int("pad_token_id", -1);
  model.tied_head = false;
  model.logits = {};
  model.moe.balance_coefficient = 0;  // transformers' class has no such loss
}

}  // namespace

absl::StatusOr<const FamilySpec*> FindFamily(const nlohmann::ordered_json& config) {
  const auto architecture = ArchitectureOf(config);
  if (!architecture.ok()) return architecture.status();
  std::vector<std::string> supported;
  for (const FamilySpec& family : Families()) {
    if (family.architecture == *architecture) return &family;
    if (family.sequence_classifier == *architecture) {
      return absl::InvalidArgumentError(
          absl::StrCat("config.json: ", *architecture,
                       " says scores, not tokens: only method.reward trains it; for others take a language model"));
    }
    supported.push_back(family.architecture);
  }
  return NotSupported(*architecture, supported);
}

absl::StatusOr<const FamilySpec*> FindRewardFamily(const nlohmann::ordered_json& config) {
  const auto architecture = ArchitectureOf(config);
  if (!architecture.ok()) return architecture.status();
  std::vector<std::string> supported;
  for (const FamilySpec& family : Families()) {
    if (family.sequence_classifier.empty()) continue;
    if (*architecture == family.architecture || *architecture == family.sequence_classifier) return &family;
    supported.push_back(family.architecture);
    supported.push_back(family.sequence_classifier);
  }
  return NotSupported(absl::StrCat(*architecture, " with method.reward"), supported);
}

bool IsRewardModel(const FamilySpec& family, const nlohmann::ordered_json& config) {
  const auto architecture = ArchitectureOf(config);
  return architecture.ok() && !architecture->empty() && *architecture == family.sequence_classifier;
}

absl::StatusOr<ModelConfig> ConfigureModel(const FamilySpec& family, const nlohmann::ordered_json& config) {
  ConfigReader reader(config);
  if (const nlohmann::ordered_json& quantization = reader.Raw("quantization_config"); !quantization.is_null()) {
    const std::string method = quantization.is_object() && quantization.contains("quant_method")
                                   ? quantization["quant_method"].dump()
                                   : "an unnamed method";
    if (!family.reads_mxfp4 || method != "\"mxfp4\"") return CannotReadQuantized(method);
  }
  ModelConfig model = family.configure(reader);
  if (IsRewardModel(family, config)) ReadScore(reader, model);
  if (absl::Status status = reader.Finish(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("config.json: ", status.message()));
  }
  const AttentionConfig& attention = model.attention;
  if (attention.num_heads % attention.num_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: ", attention.num_heads,
                                                   " attention heads cannot share ", attention.num_kv_heads,
                                                   " key-value heads: it must divide them"));
  }
  if (attention.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: rotary embeddings need an even head_dim, but it is ", attention.head_dim));
  }
  for (const RopeConfig& rope : model.ropes) {
    const int64_t pairs = rope.rotated_dims(attention.head_dim) / 2;
    if (pairs == 0 || rope.rotated_dims(attention.head_dim) % 2 != 0) {
      return absl::InvalidArgumentError(absl::StrCat("config.json: `partial_rotary_factor` leaves ",
                                                     rope.rotated_dims(attention.head_dim), " of ", attention.head_dim,
                                                     " dimensions to rotate: it must be an even number"));
    }
    if (rope.kind != RopeConfig::Kind::kLongRope) continue;
    for (const std::vector<double>* factors : {&rope.short_factors, &rope.long_factors}) {
      if (static_cast<int64_t>(factors->size()) == pairs) continue;
      return absl::InvalidArgumentError(absl::StrCat("config.json: `short_factor` and `long_factor` need ", pairs,
                                                     " numbers, one for two rotated dimensions, but have ",
                                                     factors->size()));
    }
  }
  return model;
}

}  // namespace temper
