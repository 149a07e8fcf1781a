// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "worker/model/module_observer.h"
#include "worker/model/parameter.h"

namespace temper {

// What every module of a model is made with.
struct WeightOptions {
  at::ScalarType dtype = at::kFloat;
  bool trainable = true;
  ModuleObserver* observer = nullptr;  // outlives the model
  at::Device device = at::kCPU;        // kMeta: shapes without values
};

// Allocates a zero parameter: fp32 alone, or bf16 with its low part when it is trainable.
void InitParameter(Parameter& parameter, std::string name, std::vector<int64_t> shape, const WeightOptions& options);

}  // namespace temper
