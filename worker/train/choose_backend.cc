// SPDX-License-Identifier: Apache-2.0
#include "worker/train/choose_backend.h"

#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/families/families.h"
#include "worker/train/hf_repository_backend.h"
#include "worker/train/native_check.h"
#include "worker/train/reward_source.h"

namespace temper {
namespace {

// What the model is but for its score, if it has one.
absl::StatusOr<ModelConfig> LanguageModel(const NativeRepository& model) {
  if (!model.config.score_head) return model.config;
  nlohmann::ordered_json config = model.repository->config();
  config["architectures"] = nlohmann::ordered_json::array({model.family->architecture});
  config.erase("num_labels");
  return ConfigureModel(*model.family, config);
}

// `model` is what was opened at `uri`.
absl::StatusOr<ChosenModel> Verified(const std::string& uri, absl::StatusOr<NativeRepository> model,
                                     at::ScalarType dtype, const ModelVerifier& verifier) {
  if (!model.ok()) return model.status();
  const auto compared = LanguageModel(*model);
  if (!compared.ok()) return compared.status();
  auto check = CheckNativeModel(uri, *model->family, *compared, dtype, verifier);
  if (!check.ok()) return check.status();
  return ChosenModel{*std::move(model), std::move(check->reason), std::move(check->warning)};
}

// Gives each sentence on once: several models are made of one directory.
HfDecoder::Say Once(HfDecoder::Say say) {
  auto said = std::make_shared<std::set<std::string>>();
  return [said, say = std::move(say)](const std::string& text) {
    if (said->insert(text).second) say(text);
  };
}

// Without the list of what there is instead.
std::string WithoutList(std::string_view message) {
  return std::string(message.substr(0, message.find(". Supported: ")));
}

// Whether transformers may do where temper can't: the directory is a model's, and it is not damaged.
bool IsForTransformers(const absl::Status& native) { return absl::IsUnimplemented(native); }

// The same error, with `before` before its message.
absl::Status After(const std::string& before, const absl::Status& status) {
  absl::Status said(status.code(), absl::StrCat(before, status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { said.SetPayload(url, payload); });
  return said;
}

// Of what the backend lacks (server/api/families_api.cc), what a job can ask for whatever its model.
absl::Status CheckForTransformers(const TrainJob& job) {
  if (job.distillation) {
    return absl::UnimplementedError(
        "method.distillation is for models that temper trains itself (`temper families` lists them)");
  }
  if (job.training.recompute == RecomputePolicy::kAuto || job.training.recompute == RecomputePolicy::kNone) {
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      "training.recompute: transformers keeps all activations of a model that it trains; leave it at AUTO");
}

}  // namespace

absl::StatusOr<ChosenModel> ChooseBackend(const TrainJob& job, at::ScalarType dtype, const ModelVerifier& verifier,
                                          HfDecoder::Say say) {
  // transformers' models come to the trainer with their LM head.
  if (job.reward && job.backend == Backend::kHf) {
    return absl::UnimplementedError("backend: reward models are trained by temper's own engine; leave it at AUTO");
  }
  if (job.reward) return Verified(job.model_uri, OpenRewardSource(job), dtype, verifier);
  std::string why = "the job asks for it";
  if (job.backend != Backend::kHf) {
    auto native = Verified(job.model_uri, OpenNativeRepository(job.model_uri), dtype, verifier);
    if (native.ok() || job.backend == Backend::kNative || !IsForTransformers(native.status())) return native;
    why = std::string(native.status().message());
  }
  if (job.device != DeviceKind::kCpu) {
    return WithCause(absl::UnimplementedError(absl::StrCat(
                         "transformers' models are trained on CPU here, and temper's own can't be: ", WithoutList(why),
                         ". Set resources.device to CPU")),
                     FailureCause::kUserInput);
  }
  auto model = OpenForTransformers(job.model_uri, job.trust_remote_code, Once(std::move(say)));
  absl::Status able = model.ok() ? CheckForTransformers(job) : model.status();
  if (able.ok()) return ChosenModel{*std::move(model), absl::StrCat("transformers trains it: ", WithoutList(why)), ""};
  return job.backend == Backend::kHf ? able : After(absl::StrCat(why, ". Nor can transformers train it here: "), able);
}

absl::StatusOr<std::optional<ChosenModel>> ChooseTeacher(const TrainJob& job, at::ScalarType dtype,
                                                         const ModelVerifier& verifier) {
  if (!job.distillation || job.distillation->teacher.empty()) return std::nullopt;
  const std::string& uri = job.distillation->teacher;
  auto teacher = Verified(uri, OpenNativeRepository(uri), dtype, verifier);
  if (!teacher.ok()) return After("method.distillation.teacher: ", teacher.status());
  return *std::move(teacher);
}

}  // namespace temper
