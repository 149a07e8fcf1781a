// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "worker/checkpoint/native_model.h"
#include "worker/hf_backend/hf_decoder.h"

namespace temper {

// Opens a model directory for transformers to train (worker/hf_backend): its config.json is transformers' to read, its
// tensors are ours. `remote_code`: code that lies in the directory may be run. `say` gets what people should know of
// the models that are made, on the thread that uses them; it outlives them.
//
// Errors as HfRepository::Open and HfModel have them, the latter USER_INPUT unless memory ended; UNIMPLEMENTED for what
// neither can train.
absl::StatusOr<NativeRepository> OpenForTransformers(std::string_view uri, bool remote_code, HfDecoder::Say say);

}  // namespace temper
