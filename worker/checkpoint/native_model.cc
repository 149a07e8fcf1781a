// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/native_model.h"

#include <c10/util/Exception.h>

#include <functional>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/checkpoint/freeze_weights.h"
#include "worker/checkpoint/load_weights.h"
#include "worker/checkpoint/reward_model.h"
#include "worker/families/families.h"
#include "worker/ops/out_of_memory.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

absl::Status OutOfMemory() {
  return WithCause(absl::ResourceExhaustedError("the model's weights do not fit into this machine's memory"),
                   FailureCause::kOutOfMemory);
}

absl::Status ChooseTrained(const NativeRepository& native, const TransformerOptions& options,
                           const TrainableModel& model) {
  const absl::Status frozen = FreezeWeights(options.freeze, *native.family, native.config, model.views());
  if (!frozen.ok()) return frozen;
  return TrainModules(options.trained_modules, *native.family, native.config, model.views());
}

absl::StatusOr<std::unique_ptr<TrainableModel>> Make(const NativeRepository& source,
                                                     const TransformerOptions& options) {
  if (!source.native()) return source.foreign->Make(options);
  return std::make_unique<Transformer>(source.config, options);
}

absl::Status DescribesAnother(std::string_view uri) {
  return absl::InvalidArgumentError(absl::StrCat("config.json of ", std::string(uri), " describes another model"));
}

absl::StatusOr<NativeRepository> ReopenRewardModel(const NativeRepository& like, std::string_view uri) {
  auto repository = HfRepository::Open(uri);
  if (!repository.ok()) return repository.status();
  // Only what training began with is taken for what it may not be.
  if (uri != like.repository->directory() && !IsRewardModel(*like.family, (*repository)->config())) {
    return DescribesAnother(uri);
  }
  return TakeForRewardModel(*std::move(repository), *like.new_score);
}

// `choose` says which weights are trained, before they are cut.
absl::StatusOr<LoadedModel> Build(const NativeRepository& source, TransformerOptions options, ProcessGroup* ranks,
                                  ShardingOptions sharding,
                                  const std::function<absl::Status(const TrainableModel&)>& choose) {
  sharding.device = options.device;
  // A foreign model computes what it holds beside its weights when it is made: it can't be made without memory.
  if (ranks != nullptr && source.native()) options.device = at::kMeta;
  LoadedModel built;
  auto model = Make(source, options);
  if (absl::Status made = Agree(model.status(), ranks); !made.ok()) return made;
  built.model = *std::move(model);
  if (absl::Status chosen = choose(*built.model); !chosen.ok()) return chosen;
  if (ranks != nullptr) {
    // One that is not cut into units would be gathered again at once.
    if (built.model->num_units() == 0) sharding.reshard_after_forward = false;
    built.shards = std::make_unique<ShardedModel>(*built.model, *ranks, sharding);
    built.model->AdoptMemory();
  }
  return built;
}

}  // namespace

absl::StatusOr<NativeRepository> OpenNativeRepository(std::string_view uri) {
  NativeRepository native;
  auto repository = HfRepository::Open(uri);
  if (!repository.ok()) return repository.status();
  native.repository = *std::move(repository);
  const auto family = FindFamily(native.repository->config());
  if (!family.ok()) return family.status();
  native.family = std::shared_ptr<const FamilySpec>(std::shared_ptr<void>(), *family);  // which is there always
  auto config = ConfigureModel(*native.family, native.repository->config());
  if (!config.ok()) return config.status();
  native.config = *std::move(config);
  return native;
}

absl::StatusOr<NativeRepository> ReopenRepository(const NativeRepository& like, std::string_view uri) {
  if (!like.native()) return like.foreign->Reopen(uri);
  auto opened = like.new_score ? ReopenRewardModel(like, uri) : OpenNativeRepository(uri);
  if (opened.ok() && opened->config != like.config) return DescribesAnother(uri);
  return opened;
}

absl::Status CheckCheckpoint(const NativeRepository& native, TransformerOptions options) {
  options.device = at::kMeta;
  options.lora.reset();
  try {
    const auto shapes = Make(native, options);
    if (!shapes.ok()) return shapes.status();
    if (absl::Status chosen = ChooseTrained(native, options, **shapes); !chosen.ok()) return chosen;
    return CheckWeights(*native.repository, *native.family, native.config, (*shapes)->views());
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  }
}

absl::StatusOr<std::unique_ptr<Transformer>> LoadTransformer(const NativeRepository& native,
                                                             const TransformerOptions& options) {
  auto loaded = LoadModel(native, options, /*ranks=*/nullptr);
  if (!loaded.ok()) return loaded.status();
  return std::unique_ptr<Transformer>(static_cast<Transformer*>(loaded->model.release()));
}

absl::StatusOr<LoadedModel> MakeModel(const NativeRepository& source, const TransformerOptions& options,
                                      ProcessGroup* ranks) {
  return Build(source, options, ranks, {}, [](const TrainableModel&) { return absl::OkStatus(); });
}

absl::StatusOr<LoadedModel> LoadModel(const NativeRepository& native, const TransformerOptions& options,
                                      ProcessGroup* ranks, const ShardingOptions& sharding) {
  try {
    auto loaded = Build(native, options, ranks, sharding,
                        [&](const TrainableModel& model) { return ChooseTrained(native, options, model); });
    if (!loaded.ok()) return loaded.status();
    const absl::Status filled = LoadWeights(*native.repository, *native.family, native.config, loaded->model->views());
    if (absl::Status all = Agree(filled, ranks); !all.ok()) return all;
    loaded->model->InitLora();
    return loaded;
  } catch (const c10::Error& error) {
    if (ops::IsOutOfMemory(error)) return OutOfMemory();
    return absl::InternalError(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  }
}

}  // namespace temper
