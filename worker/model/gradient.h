// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/model/parameter.h"

namespace temper {

// The fp32 buffer that a parameter's gradient is summed in; made, zeroed, at the first call, and kept from step to
// step.
at::Tensor GradientBuffer(Parameter& parameter);

// Adds `gradient` (any floating dtype) of a micro-batch. Undefined gradients are nothing.
void AccumulateGradient(Parameter& parameter, const at::Tensor& gradient);

// Zeroes what frozen rows got: their gradient counts for nothing.
void ZeroFrozenGradients(const std::vector<Parameter*>& parameters);

// Zeroes the buffers that exist.
void ZeroGradients(const std::vector<Parameter*>& parameters);

// L2 norm over the gradients of all trainable parameters, summed in fp64 in the order given.
double GlobalGradientNorm(const std::vector<Parameter*>& parameters);

// What gradients of that norm are multiplied by so that their norm is at most `max_norm`; 0 means no limit.
double ClipScale(double norm, double max_norm);

}  // namespace temper
