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

absl::StatusOr<const FamilySpec*> FindFamily(const nlohmann::ordered_json& config) {
  const auto names = config.find("architectures");
  if (names == config.end() || !names->is_array() || names->empty() || !(*names)[0].is_string()) {
    return absl::InvalidArgumentError(
        "config.json: `architectures` must name the model's class, for example [\"LlamaForCausalLM\"]");
  }
  const std::string architecture = (*names)[0].get<std::string>();
  std::vector<std::string> supported;
  for (const FamilySpec& family : Families()) {
    if (family.architecture == architecture) return &family;
    supported.push_back(family.architecture);
  }
  return absl::UnimplementedError(absl::StrCat("config.json: architecture ", architecture,
                                               " is not supported. Supported: ", absl::StrJoin(supported, ", ")));
}

namespace {

absl::Status CannotReadQuantized(const std::string& method) {
  return absl::UnimplementedError(absl::StrCat("config.json: the checkpoint is quantized with ", method,
                                               "; train the original, or de-quantize it first"));
}

}  // namespace

absl::StatusOr<ModelConfig> ConfigureModel(const FamilySpec& family, const nlohmann::ordered_json& config) {
  ConfigReader reader(config);
  if (const nlohmann::ordered_json& quantization = reader.Raw("quantization_config"); !quantization.is_null()) {
    const std::string method = quantization.is_object() && quantization.contains("quant_method")
                                   ? quantization["quant_method"].dump()
                                   : "an unnamed method";
    if (!family.reads_mxfp4 || method != "\"mxfp4\"") return CannotReadQuantized(method);
  }
  const ModelConfig model = family.configure(reader);
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
