// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "worker/model/model_config.h"

namespace temper {

// What the verifier lets both models read. Ids are int64, [T] a document.

// Lengths of documents that reach behind the model's windows and original positions, where that takes no more than
// 2,048 tokens. The first is the longest.
std::vector<int64_t> ProbeLengths(const ModelConfig& config);

// Mechanisms that begin to matter only in documents longer than `longest`, in words. None, in most models.
std::vector<std::string> NotExercised(const ModelConfig& config, int64_t longest);

// How long a document in a padded batch may be: transformers takes frequencies that depend on a document's length from
// the batch's longest, so that a longer one would differ there by design.
int64_t LongestPadded(const ModelConfig& config);

std::vector<at::Tensor> RandomDocuments(int64_t vocab_size, const std::vector<int64_t>& lengths, int64_t seed);

// Short passages in several languages and scripts.
const std::vector<std::string>& ProbeTexts();

}  // namespace temper
