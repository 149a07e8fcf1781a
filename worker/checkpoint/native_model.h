// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
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

// A model directory that one of our families understands, before any weight is read.
struct NativeRepository {
  std::unique_ptr<HfRepository> repository;
  const FamilySpec* family = nullptr;
  ModelConfig config;
};

// Opens a directory and reads config.json. Errors as HfRepository::Open, FindFamily and ConfigureModel have them.
absl::StatusOr<NativeRepository> OpenNativeRepository(std::string_view uri);

// What LoadTransformer would find wrong in the tensors, as CheckWeights finds it: it takes no memory, and time only
// where a tied head is stored beside the embedding. Adapters are not looked at.
absl::Status CheckCheckpoint(const NativeRepository& native, TransformerOptions options);

// Builds the model and loads its weights. Errors as FreezeWeights; RESOURCE_EXHAUSTED (OUT_OF_MEMORY) when it does not
// fit.
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

  std::unique_ptr<Transformer> model;
  std::unique_ptr<ShardedModel> shards;  // null: it is whole
};

// A model whose weights are zeros, in shards if there are `ranks` (null: this rank is alone), which all call it. It is
// cut before it has any memory, so that no rank ever holds more than its shards.
LoadedModel MakeModel(const ModelConfig& config, const TransformerOptions& options, ProcessGroup* ranks);

// LoadTransformer, straight into shards if there are ranks: the same values, those of new adapters too, in every world.
// Throws CollectiveError.
absl::StatusOr<LoadedModel> LoadModel(const NativeRepository& native, const TransformerOptions& options,
                                      ProcessGroup* ranks, const ShardingOptions& sharding = {});

}  // namespace temper
