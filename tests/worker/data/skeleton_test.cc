// SPDX-License-Identifier: Apache-2.0
#include "worker/data/skeleton.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;
using Json = nlohmann::ordered_json;

const Json kMessages = Json::parse(R"([{"role": "user", "content": " a "}, {"role": "assistant", "content": "b"},
    {"role": "user", "content": [{"type": "text", "text": "c\"d"}]}])");

Skeleton Make(const Placeholders& placeholders, const std::string& text) {
  return {.text = text, .uses = placeholders.FindIn(text)};
}

TEST(Placeholders, ReplaceAllButTheAssistant) {
  const Placeholders placeholders(kMessages, "");
  EXPECT_EQ(placeholders.messages()[0]["content"], placeholders.Text(0));
  EXPECT_EQ(placeholders.messages()[1]["content"], "b");
  EXPECT_EQ(placeholders.messages()[2]["content"][0]["text"], placeholders.Text(1));
  EXPECT_EQ(placeholders.Original(1), "c\"d");
  EXPECT_EQ(placeholders.spare_slot(), 2);
}

TEST(Placeholders, NeverOccurInTheRenderedText) {
  const std::string taken = Placeholders(kMessages, "").Text(0);
  const Placeholders placeholders(kMessages, "text with " + taken);
  EXPECT_NE(placeholders.Text(0), taken);
  EXPECT_TRUE(placeholders.FindIn("text with " + taken).empty());
}

TEST(AlignSkeleton, TrimmedAndEscapedTexts_AreFollowed) {
  const Placeholders placeholders(kMessages, "");
  const Skeleton skeleton =
      Make(placeholders, absl::StrCat("<", placeholders.Text(0), ">b\"", placeholders.Text(1), "\"."));
  EXPECT_THAT(AlignSkeleton(skeleton, placeholders, "< a >b\"c\"d\"."), Optional(ElementsAre(0, 4, 10)));
  EXPECT_THAT(AlignSkeleton(skeleton, placeholders, "<a>b\"c\\\"d\"."), Optional(ElementsAre(0, 2, 9)));
}

TEST(AlignSkeleton, ChangedText_IsAbsent) {
  const Placeholders placeholders(kMessages, "");
  const Skeleton skeleton = Make(placeholders, absl::StrCat("<", placeholders.Text(0), ">"));
  EXPECT_EQ(AlignSkeleton(skeleton, placeholders, "<A>"), std::nullopt);
  EXPECT_EQ(AlignSkeleton(skeleton, placeholders, "< a >x"), std::nullopt);
  EXPECT_EQ(AlignSkeleton(skeleton, placeholders, "[ a >"), std::nullopt);
}

TEST(AlignSkeleton, AmbiguousTexts_AreTakenBack) {
  // " " stays or is trimmed away; only one choice reaches the end.
  const Json messages = Json::parse(R"([{"role": "user", "content": " "}, {"role": "user", "content": "x"}])");
  const Placeholders placeholders(messages, "");
  const Skeleton skeleton = Make(placeholders, placeholders.Text(0) + " " + placeholders.Text(1));
  EXPECT_THAT(AlignSkeleton(skeleton, placeholders, " x"), Optional(ElementsAre(0, 0, 2)));
  EXPECT_THAT(AlignSkeleton(skeleton, placeholders, "  x"), Optional(ElementsAre(0, 1, 3)));
}

}  // namespace
}  // namespace temper
