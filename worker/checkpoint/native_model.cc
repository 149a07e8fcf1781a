// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/native_model.h"

#include <c10/util/Exception.h>

#include <new>
#include <utility>

#include "common/failure.h"
#include "worker/checkpoint/freeze_weights.h"
#include "worker/checkpoint/load_weights.h"
#include "worker/families/families.h"

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
  try {
    auto transformer = std::make_unique<Transformer>(native.config, options);
    if (absl::Status chosen = ChooseTrained(native, options, *transformer); !chosen.ok()) return chosen;
    const absl::Status loaded = LoadWeights(*native.repository, *native.family, native.config, transformer->views());
    if (!loaded.ok()) return loaded;
    transformer->InitLora();
    return transformer;
  } catch (const c10::Error& error) {
    if (IsOutOfMemory(error)) return OutOfMemory();
    return absl::InternalError(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  }
}

}  // namespace temper
