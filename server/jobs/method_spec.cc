// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/method_spec.h"

#include <cmath>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

void Complete(v1::PreferenceOptimization& preference, FieldCheck& check) {
  using Method = v1::PreferenceOptimization;
  if (preference.loss() == Method::LOSS_UNSPECIFIED) preference.set_loss(Method::LOSS_SIGMOID);
  const Method::Loss loss = preference.loss();
  const bool simpo = loss == Method::LOSS_SIMPO, sigmoid = loss == Method::LOSS_SIGMOID;
  if (preference.beta() == 0) preference.set_beta(simpo ? 2 : 0.1);
  check.Require(preference.beta() > 0 && std::isfinite(preference.beta()), "method.preference.beta", "over 0",
                preference.beta());
  check.Require(preference.label_smoothing() >= 0 && preference.label_smoothing() < 0.5,
                "method.preference.label_smoothing", "0 to below 0.5", preference.label_smoothing());
  if (preference.label_smoothing() != 0 && !sigmoid && !simpo) {
    check.Wrong("method.preference.label_smoothing", "is for the losses SIGMOID and SIMPO only");
  }
  if (preference.length_normalized() && !sigmoid && loss != Method::LOSS_HINGE) {
    check.Wrong("method.preference.length_normalized",
                "is for the losses SIGMOID and HINGE only: the others always are");
  }
  if (preference.has_margin() && !simpo) {
    check.Wrong("method.preference.margin", "is for the loss SIMPO only");
  } else if (simpo && !preference.has_margin()) {
    preference.set_margin(preference.beta() / 2);
  }
  check.Require(preference.margin() >= 0 && std::isfinite(preference.margin()), "method.preference.margin",
                "at least 0", preference.margin());
}

void Complete(v1::Distillation& distillation, FieldCheck& check) {
  using Method = v1::Distillation;
  const bool stored = distillation.teacher().empty();
  if (!stored) check.Uri("method.distillation.teacher", distillation.teacher(), "");
  if (distillation.divergence() == Method::DIVERGENCE_UNSPECIFIED) {
    distillation.set_divergence(Method::DIVERGENCE_FORWARD_KL);
  }
  if (distillation.temperature() == 0) distillation.set_temperature(1);
  check.Require(distillation.temperature() > 0 && std::isfinite(distillation.temperature()),
                "method.distillation.temperature", "over 0", distillation.temperature());
  check.Require(distillation.sft_weight() >= 0 && distillation.sft_weight() <= 1, "method.distillation.sft_weight",
                "0 to 1", distillation.sft_weight());
  if (stored && distillation.divergence() != Method::DIVERGENCE_FORWARD_KL) {
    check.Wrong("method.distillation.divergence", "needs a teacher: what samples bring of one is for FORWARD_KL only");
  }
  if (stored && distillation.temperature() != 1) {
    check.Wrong("method.distillation.temperature", "needs a teacher: what samples bring of one is at temperature 1");
  }
  if (distillation.divergence() == Method::DIVERGENCE_JSD) {
    if (distillation.teacher_weight() == 0) distillation.set_teacher_weight(0.5);
    check.Require(distillation.teacher_weight() > 0 && distillation.teacher_weight() < 1,
                  "method.distillation.teacher_weight", "between 0 and 1", distillation.teacher_weight());
  } else if (distillation.teacher_weight() != 0) {
    check.Wrong("method.distillation.teacher_weight", "is for the divergence JSD only");
  }
}

void Check(const v1::RewardModeling& reward, FieldCheck& check) {
  check.Require(reward.centering() >= 0 && std::isfinite(reward.centering()), "method.reward.centering", "at least 0",
                reward.centering());
}

std::string_view NameOf(const v1::Method& method) {
  if (method.has_preference()) return "method.preference";
  if (method.has_reward()) return "method.reward";
  return "method.distillation";
}

}  // namespace

void CompleteMethod(v1::Method& method, FieldCheck& check) {
  if (method.method_case() == v1::Method::METHOD_NOT_SET) method.mutable_sft();
  if (method.has_preference()) Complete(*method.mutable_preference(), check);
  if (method.has_distillation()) Complete(*method.mutable_distillation(), check);
  if (method.has_reward()) Check(method.reward(), check);
}

void CheckMethodGoesWith(const v1::JobSpec& spec, FieldCheck& check) {
  const v1::Method& method = spec.method();
  if (method.has_sft()) return;
  const auto no = [&](bool given, std::string_view field, std::string_view why) {
    const std::string name(NameOf(method));
    if (given) check.Wrong(field, absl::StrCat("does not go together with ", name, std::string(why)));
  };
  const std::string_view why = method.has_preference() ? ", which has its own"
                               : method.has_reward()   ? ": no tokens are learned"
                                                       : "";
  no(spec.training().label_smoothing() > 0, "training.label_smoothing", why);
  no(spec.training().z_loss() > 0, "training.z_loss", method.has_reward() ? why : "");
  no(LearnsFromPairs(method) && spec.data().train_on() != v1::DataSource::TRAIN_ON_UNSPECIFIED, "data.train_on",
     ", which learns from two answers");
  no(LearnsFromPairs(method) && spec.lora().dropout() > 0, "lora.dropout",
     ": what is dropped would count as a difference between answers");
  no(!method.has_preference() && spec.backend() == v1::JobSpec::BACKEND_HF, "backend",
     ", which is for models that temper trains itself");
  no(method.has_reward() && spec.output().adapter_format() == v1::Output::ADAPTER_FORMAT_VLLM, "output.adapter_format",
     ": vLLM reads no adapter with a score; export the merged model (output.adapters)");
}

bool LearnsFromPairs(const v1::Method& method) { return method.has_preference() || method.has_reward(); }

double DefaultLearningRate(const v1::Method& method, bool lora) {
  if (method.has_preference()) return lora ? 1e-5 : 1e-6;
  if (method.has_reward()) return lora ? 1e-4 : 1e-5;
  return lora ? 2e-4 : 2e-5;
}

}  // namespace temper
