// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper::ops {

// Makes the vector math library behind ATen (exp, log, tanh, …) choose its code before threads use it. Where it is MKL,
// two threads that are the first to call a function can get the results of its less accurate form: seen as an error of
// 5e-6 in the first softmax of a process, on a loaded machine, about once in 50 starts. And oneDNN
// makes the code that gives back the matrix unit, without which it crashes where memory has ended by then (seen in
// test_memory.py). Call it first, once; a millisecond.
void InitializeVectorMath();

}  // namespace temper::ops
