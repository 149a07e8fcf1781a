// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/ops/activation.h"
#include "worker/ops/cuda/element_type.h"

namespace temper::ops::cuda {

// gate_up: [rows, 2 · width], gates first. out: [rows, width].
void GatedActivationForward(Activation activation, ElementType type, int64_t rows, int64_t width, const void* gate_up,
                            void* out, cudaStream_t stream);

// grad_out: [rows, width]; grad_gate_up: as gate_up.
void GatedActivationBackward(Activation activation, ElementType type, int64_t rows, int64_t width, const void* gate_up,
                             const void* grad_out, void* grad_gate_up, cudaStream_t stream);

}  // namespace temper::ops::cuda
