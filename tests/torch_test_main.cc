// SPDX-License-Identifier: Apache-2.0
// main() of the tests that compute.
#include <gtest/gtest.h>

#include "worker/ops/vector_math.h"

int main(int argc, char** argv) {
  temper::ops::InitializeVectorMath();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
