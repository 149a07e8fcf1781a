// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

#include <string>

#include "absl/status/statusor.h"
#include "worker/verify/layer_range.h"
#include "worker/verify/verdict.h"

namespace temper {

struct VerifyOptions {
  std::string model;  // an HF directory, as ObjectStore::Open takes it
  // A PEFT adapter directory that both sides put on the model; empty without.
  std::string adapter;
  // What the native side loads, when it is another directory: so that tests can plant bugs.
  std::string native_model;
  at::ScalarType dtype = at::kFloat;  // or bf16, which is measured against HF in fp32
  bool compare_layers = false;
  bool compare_gradients = false;  // fp32 only, and without an adapter
  LayerRange layers;               // of the model; not with an adapter
};

// Lets the native model and transformers' own read the same documents, in this process and from the same files, and
// compares what comes out at every position. A model that fails is no error: see Verdict::reasons. Errors as
// OpenNativeRepository, PlanFromAdapter, LoadTransformer and HfReference have them. Any thread; memory for both models
// (in bf16, three).
absl::StatusOr<Verdict> Verify(const VerifyOptions& options);

}  // namespace temper
