// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/checkpoint/hf_repository.h"
#include "worker/families/family_spec.h"
#include "worker/model/transformer.h"
#include "worker/parallel/process_group.h"
#include "worker/parallel/sharded_model.h"

namespace temper {

struct NativeRepository;

// Makes models of directories that no family of ours is for. Any thread.
class ForeignBackend {
 public:
  virtual ~ForeignBackend() = default;
  // Its weights are not set; on the device meta, shapes alone.
  virtual absl::StatusOr<std::unique_ptr<TrainableModel>> Make(const TransformerOptions& options) const = 0;
  // A directory that an export of the same model wrote; INVALID_ARGUMENT when it is another model's.
  virtual absl::StatusOr<NativeRepository> Reopen(std::string_view uri) const = 0;
};

// What a reward model has that a language model lacks.
struct NewScore {
  int64_t seed = 0;        // of the score's first numbers
  int64_t pad_token = -1;  // what rows are padded with
};

// A model directory that one of our families understands, or another backend, before any weight is read.
struct NativeRepository {
  std::unique_ptr<HfRepository> repository;
  // Where the tensors' names come from. A foreign backend has one for each model.
  std::shared_ptr<const FamilySpec> family;
  ModelConfig config;
  std::shared_ptr<const ForeignBackend> foreign;  // null: the model is our own
  std::optional<NewScore> new_score;              // present: it was taken for a reward model (reward_model.h)

  bool native() const { return foreign == nullptr; }
  // The model's class in transformers.
  const std::string& architecture() const {
    return config.score_head ? family->sequence_classifier : family->architecture;
  }
};

// Opens a language model's directory and reads config.json. Errors as HfRepository::Open, FindFamily and ConfigureModel
// have them.
absl::StatusOr<NativeRepository> OpenNativeRepository(std::string_view uri);

// A directory that an export of `like` wrote. INVALID_ARGUMENT when it is another model's.
absl::StatusOr<NativeRepository> ReopenRepository(const NativeRepository& like, std::string_view uri);

// What LoadModel would find wrong in the tensors, as CheckWeights finds it: it takes no memory, and time only
// where a tied head is stored beside the embedding. Adapters are not looked at.
absl::Status CheckCheckpoint(const NativeRepository& native, TransformerOptions options);

// Builds a native model and loads its weights. Errors as FreezeWeights; RESOURCE_EXHAUSTED (OUT_OF_MEMORY) when it does
// not fit.
absl::StatusOr<std::unique_ptr<Transformer>> LoadTransformer(const NativeRepository& native,
                                                             const TransformerOptions& options);

// A model, whole or in the shards of a gang.
struct LoadedModel {
  LoadedModel() = default;
  LoadedModel(LoadedModel&&) = default;
  LoadedModel& operator=(LoadedModel&& other) noexcept {
    shards = std::move(other.shards);  // before the model that they are of
    model = std::move(other.model);
    return *this;
  }

  std::unique_ptr<TrainableModel> model;
  std::unique_ptr<ShardedModel> shards;  // null: it is whole
};

// A model whose weights are not set, in shards if there are `ranks` (null: this rank is alone), which all call it. A
// native one is cut before it has any memory, so that no rank ever holds more than its shards.
absl::StatusOr<LoadedModel> MakeModel(const NativeRepository& source, const TransformerOptions& options,
                                      ProcessGroup* ranks);

// LoadTransformer, straight into shards if there are ranks: the same values, those of new adapters too, in every world.
// Throws CollectiveError.
absl::StatusOr<LoadedModel> LoadModel(const NativeRepository& native, const TransformerOptions& options,
                                      ProcessGroup* ranks, const ShardingOptions& sharding = {});

}  // namespace temper
