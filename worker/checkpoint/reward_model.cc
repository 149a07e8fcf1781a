// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/reward_model.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "worker/families/families.h"

namespace temper {
namespace {

constexpr std::string_view kHead = "lm_head.weight";
constexpr char kScore[] = "score.weight";
constexpr char kPadToken[] = "pad_token_id";

nlohmann::ordered_json RewardConfig(nlohmann::ordered_json config, const FamilySpec& family, int64_t pad_token) {
  config["architectures"] = nlohmann::ordered_json::array({family.sequence_classifier});
  config.erase("num_labels");
  config["id2label"] = {{"0", "LABEL_0"}};
  config["label2id"] = {{"LABEL_0", 0}};
  config[kPadToken] = pad_token;
  return config;
}

// fp32 where that is none that a score can have: who checks all tensors says so.
std::string DtypeOfEmbedding(const HfRepository& repository) {
  const RepositoryTensor* const embedding = repository.FindTensor("model.embed_tokens.weight");
  const bool known = embedding != nullptr && (embedding->entry.dtype == "BF16" || embedding->entry.dtype == "F16");
  return known ? embedding->entry.dtype : "F32";
}

// As transformers initialises a linear layer.
at::Tensor DrawScore(const nlohmann::ordered_json& config, int64_t hidden_size, int64_t seed) {
  constexpr double kUsualRange = 0.02;
  const auto range = config.find("initializer_range");
  const double deviation = range != config.end() && range->is_number() ? range->get<double>() : kUsualRange;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  return at::empty({1, hidden_size}, at::kFloat).normal_(0, deviation, generator);
}

}  // namespace

std::optional<int64_t> ConfiguredPadToken(const nlohmann::ordered_json& config) {
  const auto token = config.find(kPadToken);
  if (token == config.end() || !token->is_number_integer() || *token < 0) return std::nullopt;
  return token->get<int64_t>();
}

absl::StatusOr<NativeRepository> TakeForRewardModel(std::unique_ptr<HfRepository> repository,
                                                    const NewScore& new_score) {
  const auto family = FindRewardFamily(repository->config());
  if (!family.ok()) return family.status();
  const bool scores = IsRewardModel(**family, repository->config());
  if (!scores) {
    repository->set_config(RewardConfig(repository->config(), **family, new_score.pad_token));
  } else if (!ConfiguredPadToken(repository->config())) {
    nlohmann::ordered_json config = repository->config();
    config[kPadToken] = new_score.pad_token;
    repository->set_config(std::move(config));
  }
  auto config = ConfigureModel(**family, repository->config());
  if (!config.ok()) return config.status();
  if (!scores) {
    repository->Rename(
        [](std::string_view name) { return name == kHead ? std::nullopt : std::optional<std::string>(name); });
    repository->Add(kScore, DtypeOfEmbedding(*repository),
                    DrawScore(repository->config(), config->hidden_size, new_score.seed));
  }
  NativeRepository model;
  model.repository = std::move(repository);
  model.family = std::shared_ptr<const FamilySpec>(std::shared_ptr<void>(), *family);  // which is there always
  model.config = *std::move(config);
  model.new_score = new_score;
  return model;
}

}  // namespace temper
