// SPDX-License-Identifier: Apache-2.0
#include "worker/train/choose_backend.h"

#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/train/hf_repository_backend.h"
#include "worker/train/native_check.h"

namespace temper {
namespace {

absl::StatusOr<ChosenModel> OpenNative(const std::string& uri, at::ScalarType dtype, const ModelVerifier& verifier) {
  auto model = OpenNativeRepository(uri);
  if (!model.ok()) return model.status();
  auto check = CheckNativeModel(uri, *model->family, model->config, dtype, verifier);
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
  std::string why = "the job asks for it";
  if (job.backend != Backend::kHf) {
    auto native = OpenNative(job.model_uri, dtype, verifier);
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
  auto teacher = OpenNative(job.distillation->teacher, dtype, verifier);
  if (!teacher.ok()) return After("method.distillation.teacher: ", teacher.status());
  return *std::move(teacher);
}

}  // namespace temper
