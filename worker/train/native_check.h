// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

#include <string>

#include "absl/status/statusor.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"
#include "worker/train/export_verifier.h"

namespace temper {

// Why a model is trained natively, for people, and what is to be warned of: empty, or a sentence.
struct NativeCheck {
  std::string reason;
  std::string warning;
};

// Whether the native model computes what transformers' own does. Of a set of mechanisms that temper comes with a
// verdict on (common/family_verdicts.h) it is known; of any other one, `verifier` compares the first layers of the
// model at `uri`: in fp32, which shows every bug, and in `dtype`, which the job computes in. Null: nobody can compare.
//
// UNIMPLEMENTED when they depart.
absl::StatusOr<NativeCheck> CheckNativeModel(const std::string& uri, const FamilySpec& family,
                                             const ModelConfig& config, at::ScalarType dtype,
                                             const ModelVerifier& verifier);

}  // namespace temper
