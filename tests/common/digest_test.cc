// SPDX-License-Identifier: Apache-2.0
#include "common/digest.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

// The examples of FIPS 180-4.
TEST(Sha256Test, KnownMessages_HaveTheirDigests) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, Pieces_GiveTheDigestOfTheWhole) {
  Sha256 digest;
  digest.Update("a");
  EXPECT_EQ(digest.Hex(), Sha256Hex("a"));
  digest.Update("");
  digest.Update("bc");
  EXPECT_EQ(digest.Hex(), Sha256Hex("abc")) << "Hex() in between changes nothing";
}

}  // namespace
}  // namespace temper
