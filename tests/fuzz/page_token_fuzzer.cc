// SPDX-License-Identifier: Apache-2.0
// The page_token of a client that lists jobs, of which the server has three.
#include <memory>
#include <string>

#include "server/jobs/job_store.h"
#include "tests/common/scratch_directory.h"
#include "tests/fuzz/fuzz_input.h"

namespace temper {
namespace {

struct Jobs {
  Jobs() {
    for (const char* id : {"a", "b", "c"}) {
      JobUpdate update;
      update.record.id = id;
      update.record.job.set_name(std::string("jobs/") + id);
      Require(store->Create(update).ok());
    }
  }

  ScratchDirectory scratch;
  std::unique_ptr<JobStore> store = *JobStore::Open(scratch.path() / "data");
};

}  // namespace
}  // namespace temper

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using temper::Require;
  static const temper::Jobs jobs;
  const std::string token(temper::FuzzText(data, size));
  const auto page = jobs.store->List({}, /*page_size=*/1, token);
  if (!page.ok()) {
    Require(absl::IsInvalidArgument(page.status()));
    return 0;
  }
  Require(page->jobs.size() <= 1);
  // Page by page it comes to an end.
  std::string next = page->next_page_token;
  for (int pages = 1; !next.empty(); ++pages) {
    Require(pages < 3);
    next = jobs.store->List({}, /*page_size=*/1, next)->next_page_token;
  }
  return 0;
}
