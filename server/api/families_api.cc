// SPDX-License-Identifier: Apache-2.0
#include "server/api/families_api.h"

#include <string>
#include <vector>

#include "common/family_verdicts.h"
#include "server/api/unary_answer.h"

namespace temper {
namespace {

v1::FamilyVerdict ToProto(const FamilyVerdict& verdict) {
  v1::FamilyVerdict proto;
  proto.mutable_mechanisms()->Assign(verdict.mechanisms.begin(), verdict.mechanisms.end());
  proto.set_device(verdict.device);
  proto.set_numerics_version(verdict.numerics_version);
  proto.set_passed(verdict.passed);
  proto.set_max_kl_fp32(verdict.max_kl_fp32);
  proto.set_max_gradient_error(verdict.max_gradient_error);
  proto.set_bf16_mean_ratio(verdict.bf16_mean_ratio);
  proto.set_bf16_max_ratio(verdict.bf16_max_ratio);
  return proto;
}

struct Backend {
  std::string name;
  std::string models;
  std::vector<std::string> lacks;
};

// docs/TRAINING.md ("Models without a native family") says the same at length, and tests/worker/train/backends.py how
// jobs are refused that ask for it all the same.
std::vector<Backend> Backends() {
  return {{.name = "native", .models = "the families above", .lacks = {}},
          {.name = "hf",
           .models = "causal language models of the transformers that TEMPER_PYTHON has",
           .lacks = {"GPUs", "training.recompute", "method.distillation", "method.reward",
                     "adapters on embed_tokens, lm_head and experts", "the loss for an even use of experts",
                     "a comparison of exports with transformers' own model, which is what trained",
                     "shards of single layers: each rank gathers the whole model for a step",
                     "packed documents where attention does not go through transformers' interface",
                     "MFU where the model's FLOPs can't be counted"}}};
}

v1::ListFamiliesResponse Families() {
  v1::ListFamiliesResponse response;
  for (const FamilyVerdict& verdict : ShippedVerdicts()) {  // by family
    const int last = response.families_size() - 1;
    v1::ModelFamily* family = last >= 0 && response.families(last).name() == verdict.family
                                  ? response.mutable_families(last)
                                  : response.add_families();
    family->set_name(verdict.family);
    family->set_architecture(verdict.architecture);
    *family->add_verdicts() = ToProto(verdict);
  }
  for (const Backend& backend : Backends()) {
    v1::BackendCapabilities& proto = *response.add_backends();
    proto.set_name(backend.name);
    proto.set_models(backend.models);
    proto.mutable_lacks()->Assign(backend.lacks.begin(), backend.lacks.end());
  }
  return response;
}

}  // namespace

grpc::ServerUnaryReactor* FamiliesApi::List(grpc::CallbackServerContext* context, const v1::ListFamiliesRequest&,
                                            v1::ListFamiliesResponse* response) {
  return Answer(context, "ListFamilies", observer_, absl::StatusOr<v1::ListFamiliesResponse>(Families()), response);
}

}  // namespace temper
