// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

// Legend: T tokens, V vocabulary.

namespace temper {

// What a module of HF's model got and gave, by token: [T, …].
struct HfModuleTensors {
  at::Tensor input;
  at::Tensor output;
};

// Layers [begin, begin + count) of a model, as a model of their own; count 0: the whole model.
struct HfLayers {
  std::string config;  // its config.json
  int64_t begin = 0;
  int64_t count = 0;
};

// A model directory, and what of it is meant.
struct HfSource {
  std::string directory;
  std::string adapter;  // a PEFT directory on top of it; empty: none
  HfLayers layers;
};

struct HfTrace {
  std::map<std::string, HfModuleTensors> modules;
  at::Tensor logits_TV;  // fp32
};

// A model of transformers, run in this process by an embedded interpreter, as the reference for ours: eager attention
// and eager experts (SDPA silently drops what some families need), no cache, no dropout. Ids are int64 [T].
//
// Any thread, one call at a time. The interpreter's lock is held during a call only. INTERNAL when Python raises; the
// message is the exception's.
class HfReference {
 public:
  // Loads a model in fp32 or bf16, whatever dtype its files have. UNAVAILABLE as PythonSymbol, or when the environment
  // has no transformers (or PEFT).
  static absl::StatusOr<std::unique_ptr<HfReference>> Open(const HfSource& source, at::ScalarType dtype);
  virtual ~HfReference() = default;

  // fp32 [T, V] of one document on its own.
  virtual absl::StatusOr<at::Tensor> Logits(const at::Tensor& ids_T) = 0;

  // The same of several documents in one batch, padded on the right; without the padding's rows.
  virtual absl::StatusOr<std::vector<at::Tensor>> PaddedLogits(const std::vector<at::Tensor>& documents) = 0;

  // Runs one document and keeps what the named modules ("model.layers.0.self_attn.o_proj") see. Names that are no
  // modules of the model are left out.
  virtual absl::StatusOr<HfTrace> Trace(const at::Tensor& ids_T, const std::vector<std::string>& modules) = 0;

  // Gradients of the mean cross-entropy of next tokens over all documents, by the names that checkpoints have.
  virtual absl::StatusOr<std::map<std::string, at::Tensor>> Gradients(const std::vector<at::Tensor>& documents) = 0;

  // The texts in the ids of the model's tokenizer; nothing when the directory has none.
  virtual absl::StatusOr<std::optional<std::vector<at::Tensor>>> Encode(const std::vector<std::string>& texts) = 0;
};

// How the module makes one: the type of `temper_open_hf_reference` in libtemper_python.so. This file is what a rank and
// a module of another build must have in common (CMakeLists.txt).
using OpenHfReferenceFunction = void(const HfSource& source, at::ScalarType dtype,
                                     absl::StatusOr<std::unique_ptr<HfReference>>& result);

}  // namespace temper
