// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/native_model.h"

#include <c10/util/Exception.h>

#include <functional>
#include <new>
#include <utility>

#include "common/failure.h"
#include "worker/checkpoint/freeze_weights.h"
#include "worker/checkpoint/load_weights.h"
#include "worker/families/families.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

// torch reports a failed allocation as a plain error.
bool IsOutOfMemory(const c10::Error& error) {
  return std::string_view(error.what_without_backtrace()).find("can't allocate memory") != std::string_view::npos;
}

absl::Status OutOfMemory() {
  return WithCause(absl::ResourceExhaustedError("the model's weights do not fit into this machine's memory"),
                   FailureCause::kOutOfMemory);
}

absl::Status ChooseTrained(const NativeRepository& native, const TransformerOptions& options,
                           const Transformer& model) {
  const absl::Status frozen = FreezeWeights(options.freeze, *native.family, native.config, model.views());
  if (!frozen.ok()) return frozen;
  return TrainModules(options.trained_modules, *native.family, native.config, model.views());
}

// `choose` says which weights are trained, before they are cut.
absl::StatusOr<LoadedModel> Build(const ModelConfig& config, TransformerOptions options, ProcessGroup* ranks,
                                  ShardingOptions sharding,
                                  const std::function<absl::Status(const Transformer&)>& choose) {
  sharding.device = options.device;
  if (ranks != nullptr) options.device = at::kMeta;
  LoadedModel built;
  built.model = std::make_unique<Transformer>(config, options);
  if (absl::Status chosen = choose(*built.model); !chosen.ok()) return chosen;
  if (ranks != nullptr) {
    built.shards = std::make_unique<ShardedModel>(*built.model, *ranks, sharding);
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
  native.family = *family;
  auto config = ConfigureModel(*native.family, native.repository->config());
  if (!config.ok()) return config.status();
  native.config = *std::move(config);
  return native;
}

absl::Status CheckCheckpoint(const NativeRepository& native, TransformerOptions options) {
  options.device = at::kMeta;
  options.lora.reset();
  try {
    const Transformer shapes(native.config, options);
    if (absl::Status chosen = ChooseTrained(native, options, shapes); !chosen.ok()) return chosen;
    return CheckWeights(*native.repository, *native.family, native.config, shapes.views());
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  }
}

absl::StatusOr<std::unique_ptr<Transformer>> LoadTransformer(const NativeRepository& native,
                                                             const TransformerOptions& options) {
  auto loaded = LoadModel(native, options, /*ranks=*/nullptr);
  if (!loaded.ok()) return loaded.status();
  return std::move(loaded->model);
}

LoadedModel MakeModel(const ModelConfig& config, const TransformerOptions& options, ProcessGroup* ranks) {
  // Without `choose`, nothing can fail.
  return *Build(config, options, ranks, {}, [](const Transformer&) { return absl::OkStatus(); });
}

absl::StatusOr<LoadedModel> LoadModel(const NativeRepository& native, const TransformerOptions& options,
                                      ProcessGroup* ranks, const ShardingOptions& sharding) {
  try {
    auto loaded = Build(native.config, options, ranks, sharding,
                        [&](const Transformer& model) { return ChooseTrained(native, options, model); });
    if (!loaded.ok()) return loaded.status();
    const absl::Status filled = LoadWeights(*native.repository, *native.family, native.config, loaded->model->views());
    if (absl::Status all = Agree(filled, ranks); !all.ok()) return all;
    loaded->model->InitLora();
    return loaded;
  } catch (const c10::Error& error) {
    if (IsOutOfMemory(error)) return OutOfMemory();
    return absl::InternalError(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  }
}

}  // namespace temper
