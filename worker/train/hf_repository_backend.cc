// SPDX-License-Identifier: Apache-2.0
#include "worker/train/hf_repository_backend.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/failure.h"
#include "worker/checkpoint/hf_config.h"
#include "worker/ops/packed_attention.h"

namespace temper {
namespace {

at::Tensor Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<int64_t>& starts,
                  double scale, double softcap, int64_t window, const at::Tensor& sinks) {
  return ops::PackedAttention(q.contiguous(), k.contiguous(), v.contiguous(), starts,
                              {.scale = scale, .softcap = softcap, .window = window}, sinks);
}

// The rules by which a checkpoint's tensors are the weights of a model: each is one, under a name that transformers
// gives it.
absl::StatusOr<FamilySpec> RulesOf(const HfDescription& description) {
  FamilySpec family = {.name = "transformers", .architecture = description.architecture, .token_adapters = false};
  family.derived_tensors = description.ignored;
  std::map<std::string, std::vector<std::string>> stored;  // by the name in memory
  for (const auto& [file, memory] : description.names) stored[memory].push_back(file);
  for (const HfWeight& weight : description.weights) {
    for (const HfWeight::Piece& piece : weight.pieces) {
      family.rules.push_back({.hf_name = piece.stored, .parts = {InternalName(weight, piece)}});
    }
    if (!weight.pieces.empty()) continue;
    const std::vector<std::string>& names = stored[weight.name];
    const bool embedding = weight.kind == HfWeight::Kind::kEmbedding;
    if (weight.shape.empty()) return absl::UnimplementedError(absl::StrCat(weight.name, " is a single number"));
    TensorRule rule = {.hf_name = names.empty() ? weight.name : names.front(), .parts = {InternalName(weight)}};
    rule.in_by_out = weight.kind == HfWeight::Kind::kConv1d;
    rule.adapter_site = rule.in_by_out || weight.kind == HfWeight::Kind::kLinear;
    if (rule.adapter_site) rule.adapter_module = weight.name.substr(0, weight.name.rfind('.'));
    family.rules.push_back(std::move(rule));
    for (size_t i = 1; i < names.size(); ++i) {
      if (!embedding || !description.tied_head || i > 1) {
        return absl::UnimplementedError(
            absl::StrCat("the checkpoint has ", weight.name, " more than once, as ", absl::StrJoin(names, " and ")));
      }
      family.rules.push_back({.hf_name = names[i], .parts = {"lm_head.weight"}});  // a tied head that is stored
    }
  }
  return family;
}

// What the engine needs to know of a model beside its tensors.
ModelConfig ConfigOf(const HfDescription& description) {
  ModelConfig config;
  config.hidden_size = description.hidden_size;
  config.num_layers = std::max<int64_t>(1, description.layers);
  config.vocab_size = description.vocab_size;
  config.max_positions = description.positions > 0 ? description.positions : std::numeric_limits<int32_t>::max();
  config.tied_head = description.tied_head;
  const int64_t heads = std::max<int64_t>(1, description.heads);
  config.attention.num_heads = config.attention.num_kv_heads = heads;
  config.attention.head_dim = std::max<int64_t>(1, description.hidden_size / heads);
  // Of the parameters that are neither: as wide a layer as has as many.
  int64_t elements = 0;
  for (const HfWeight& weight : description.weights) {
    if (weight.kind != HfWeight::Kind::kLinear && weight.kind != HfWeight::Kind::kConv1d) continue;
    elements += weight.shape[0] * weight.shape[1];
  }
  const int64_t inner = elements / config.num_layers / config.hidden_size - 4 * config.hidden_size;
  config.feed_forward.intermediate_size = std::max(config.hidden_size, inner / 3);
  return config;
}

// A model that Python can't make is the user's to mend, whatever it raises, as is a Python that is not there; where
// memory ends is not.
absl::Status OfModel(const absl::Status& status) {
  return CauseOf(status) == FailureCause::kOutOfMemory ? status : WithCause(status, FailureCause::kUserInput);
}

class TransformersBackend : public ForeignBackend {
 public:
  TransformersBackend(HfModelSource source, bool remote_code, nlohmann::ordered_json config, HfDescription description,
                      HfDecoder::Say say)
      : source_(std::move(source)),
        remote_code_(remote_code),
        config_(std::move(config)),
        description_(std::move(description)),
        say_(std::move(say)) {}

  absl::StatusOr<std::unique_ptr<TrainableModel>> Make(const TransformerOptions& options) const override {
    auto model = HfModel::Open(source_, options.device.is_meta(), Attend);
    if (!model.ok()) return model.status();
    auto decoder = HfDecoder::Make(*std::move(model), description_, options, say_);
    if (!decoder.ok()) return decoder.status();
    return std::unique_ptr<TrainableModel>(*std::move(decoder));
  }

  absl::StatusOr<NativeRepository> Reopen(std::string_view uri) const override {
    auto opened = OpenForTransformers(uri, remote_code_, say_);
    if (!opened.ok()) return opened.status();
    // An export spells some keys in two ways.
    const auto spelled = [](const nlohmann::ordered_json& config) {
      const nlohmann::json sorted = ExportConfig(config, "float32");
      return sorted;
    };
    if (spelled(opened->repository->config()) != spelled(config_)) {
      return absl::InvalidArgumentError(absl::StrCat("config.json of ", std::string(uri), " describes another model"));
    }
    return opened;
  }

 private:
  const HfModelSource source_;
  const bool remote_code_;
  const nlohmann::ordered_json config_;
  const HfDescription description_;
  const HfDecoder::Say say_;
};

}  // namespace

absl::StatusOr<NativeRepository> OpenForTransformers(std::string_view uri, bool remote_code, HfDecoder::Say say) {
  auto repository = HfRepository::Open(uri);
  if (!repository.ok()) return repository.status();
  const nlohmann::ordered_json& config = (*repository)->config();
  if (config.contains("quantization_config") && !config["quantization_config"].is_null()) {
    return absl::UnimplementedError("config.json: the checkpoint is quantized; train the original, or de-quantize it");
  }
  HfModelSource source = {.config = config.dump(), .directory = (*repository)->directory(), .remote_code = remote_code};
  const auto shapes = HfModel::Open(source, /*meta=*/true, Attend);
  if (!shapes.ok()) return OfModel(shapes.status());
  std::vector<std::string> stored;
  for (const RepositoryTensor& tensor : (*repository)->tensors()) stored.push_back(tensor.entry.name);
  auto description = (*shapes)->Describe(stored);
  if (!description.ok()) return OfModel(description.status());
  auto family = RulesOf(*description);
  if (!family.ok()) return family.status();
  NativeRepository opened;
  opened.family = std::make_shared<const FamilySpec>(*std::move(family));
  opened.config = ConfigOf(*description);
  opened.foreign = std::make_shared<TransformersBackend>(std::move(source), remote_code, config,
                                                         *std::move(description), std::move(say));
  opened.repository = *std::move(repository);
  return opened;
}

}  // namespace temper
