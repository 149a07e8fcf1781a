// SPDX-License-Identifier: Apache-2.0
// The module of this build is called in tests/worker/verify.
#include "worker/python/python_runtime.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper {
namespace {

using testing::HasSubstr;

std::filesystem::path BesideThisTest(const char* name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

TEST(PythonSymbol, ModuleOfAnotherBuild_IsUnavailable) {
  for (const char* module : {"libforeign_python_module.so", "libsilent_python_module.so"}) {
    const absl::Status status = PythonSymbol(BesideThisTest(module), "temper_open_hf_reference").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(module) + " belongs to another build of temper"));
  }
}

TEST(PythonSymbol, NoModule_SaysWhatToInstall) {
  const absl::Status status = PythonSymbol(BesideThisTest("libnothing.so"), "temper_open_hf_reference").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("temper was built without Python"));
}

}  // namespace
}  // namespace temper
