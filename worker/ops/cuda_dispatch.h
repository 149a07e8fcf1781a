// SPDX-License-Identifier: Apache-2.0
#pragma once

// RETURN_IF_CUDA(tensor, Operator(arguments)): the line of an operator that hands the call to its namesake in
// worker/ops/cuda where `tensor` is on a GPU. In a library built without TEMPER_CUDA it is nothing, and the operator's
// ATen code runs there too.
#ifdef TEMPER_CUDA
#include "worker/ops/cuda/operators.h"
#define RETURN_IF_CUDA(tensor, call) \
  if ((tensor).is_cuda()) return cuda::call
#else
#define RETURN_IF_CUDA(tensor, call) static_cast<void>(0)
#endif
