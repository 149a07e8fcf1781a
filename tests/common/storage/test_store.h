// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"
#include "common/storage/storage_uri.h"
#include "tests/common/scratch_directory.h"

namespace temper {

// A store for one test, empty at first and removed with it: below the URI in TEMPER_TEST_STORE, else on this machine.
class TestStore {
 public:
  TestStore() {
    const char* place = std::getenv("TEMPER_TEST_STORE");
    const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
    directory_ = absl::StrCat(test.test_suite_name(), "-", test.name(), "-", ::getpid());
    root_ = *ObjectStore::Open(place != nullptr ? place : scratch_.path().string());
    store_ = *ObjectStore::Open(UriBelow(root_->uri(), directory_));
  }
  ~TestStore() { EXPECT_EQ(root_->DeleteDirectory(directory_), absl::OkStatus()); }

  ObjectStore& operator*() const { return *store_; }
  ObjectStore* operator->() const { return store_.get(); }

 private:
  const ScratchDirectory scratch_;
  std::string directory_;
  std::unique_ptr<ObjectStore> root_, store_;
};

}  // namespace temper
