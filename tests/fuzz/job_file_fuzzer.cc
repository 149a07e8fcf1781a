// SPDX-License-Identifier: Apache-2.0
// A job file as YAML or JSON.
#include "client/job_file.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = temper::ParseJobFile(temper::FuzzText(data, size), "fuzz", "/");
  if (file.ok()) temper::Require(file->spec.SerializeAsString().size() <= 16 * size + 1024);
  return 0;
}
