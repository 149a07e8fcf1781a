// SPDX-License-Identifier: Apache-2.0
// manifest.json of a published directory, which whoever can write to the store may have written.
#include "common/storage/publication.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto manifest = temper::ParseManifest(temper::FuzzText(data, size), "manifest.json");
  temper::Require(manifest.ok() ? manifest->total_size() >= 0 : absl::IsDataLoss(manifest.status()));
  return 0;
}
