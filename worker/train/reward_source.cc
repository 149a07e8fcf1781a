// SPDX-License-Identifier: Apache-2.0
#include "worker/train/reward_source.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/checkpoint/hf_repository.h"
#include "worker/checkpoint/reward_model.h"
#include "worker/families/families.h"
#include "worker/text/template_files.h"
#include "worker/text/tokenizer.h"

namespace temper {
namespace {

// What a reward model is given with its new score.
absl::StatusOr<int64_t> ChoosePadToken(const HfRepository& repository) {
  const auto special_tokens = ReadSpecialTokens(repository.store());
  if (!special_tokens.ok()) return special_tokens.status();
  const auto tokenizer = Tokenizer::Open(repository.store());
  if (!tokenizer.ok()) return tokenizer.status();
  const auto find = [&](const char* name) { return tokenizer->TokenToId(special_tokens->value(name, "")); };
  if (const auto pad = find("pad_token")) return *pad;
  if (const auto configured = ConfiguredPadToken(repository.config())) return *configured;
  if (const auto eos = find("eos_token")) return *eos;
  return absl::InvalidArgumentError(
      absl::StrCat(repository.directory(),
                   ": a reward model needs a padding token, but tokenizer_config.json names no `pad_token` and no "
                   "`eos_token`, and config.json no `pad_token_id`. Add one of them"));
}

}  // namespace

absl::StatusOr<NativeRepository> OpenRewardSource(const TrainJob& job) {
  auto repository = HfRepository::Open(job.model_uri);
  if (!repository.ok()) return repository.status();
  const auto family = FindRewardFamily((*repository)->config());
  if (!family.ok()) return family.status();
  NewScore score = {.seed = job.training.seed};
  if (!IsRewardModel(**family, (*repository)->config()) || !ConfiguredPadToken((*repository)->config())) {
    const auto pad_token = ChoosePadToken(**repository);
    if (!pad_token.ok()) return pad_token.status();
    score.pad_token = *pad_token;
  }
  return TakeForRewardModel(*std::move(repository), score);
}

}  // namespace temper
